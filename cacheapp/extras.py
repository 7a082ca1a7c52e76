"""Names the extra that installs a missing package: `pip install 'cacheapp[redis]'`.

The core requires Django, lmdb and msgpack. Each other package belongs to an extra, and is imported
only by the modules that use it.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

from cacheapp.errors import ExtraMissing

OPTIONAL = frozenset(
    [
        *("diskcache", "django_redis", "redis", "hiredis", "urllib3", "rich", "botocore", "awscrt"),
        *("prometheus_client", "opentelemetry"),
        *("django_htmx", "celery", "kombu", "gunicorn", "rest_framework"),
    ]
)
"""The packages that no part of the core imports, by the names of their modules."""


def missing(package: str, extra: str) -> str:
    """Return the end of a sentence about a feature whose package is not installed."""
    return (
        f"requires the package {package}, which is not installed. "
        f"Run: pip install 'cacheapp[{extra}]'"
    )


@contextlib.contextmanager
def needed_for(feature: str, extra: str) -> Iterator[None]:
    """Raise `ExtraMissing` if an import inside the block lacks an optional package, or a part of it."""
    try:
        yield
    except ExtraMissing:
        raise
    except ImportError as exc:
        package = str(exc.name).partition(".")[0]
        if package not in OPTIONAL:
            raise
        raise ExtraMissing(f"{feature} {_unmet(package, extra, exc)}", name=exc.name) from exc


def _unmet(package: str, extra: str, exc: ImportError) -> str:
    if importlib.util.find_spec(package) is None:
        return missing(package, extra)
    return (
        f"requires another release of the package {package} than the installed one ({exc}). "
        f"Run: pip install 'cacheapp[{extra}]'"
    )
