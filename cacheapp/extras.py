"""Names the extra that installs a missing package: `pip install 'cacheapp[redis]'`.

The core requires Django, lmdb and msgpack. Each other package belongs to an extra, and is imported
only by the modules that use it.
"""

import contextlib
from collections.abc import Iterator

from cacheapp.errors import ExtraMissing

OPTIONAL = frozenset(
    [
        *("diskcache", "django_redis", "redis", "urllib3", "rich", "botocore", "awscrt"),
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
    """Raise `ExtraMissing` if an import inside the block lacks an optional package."""
    try:
        yield
    except ModuleNotFoundError as exc:
        package = str(exc.name).partition(".")[0]
        if package not in OPTIONAL:
            raise
        raise ExtraMissing(f"{feature} {missing(package, extra)}", name=exc.name) from exc
