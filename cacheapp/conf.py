"""The one reader of the `CACHEAPP` setting: a dict whose every mistake is reported at once."""

import dataclasses
import functools
import hashlib
import ipaddress
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from cacheapp.access_settings import AllowedBucket, ApiToken, read_buckets, read_origin, read_tokens


@dataclasses.dataclass(frozen=True)
class Conf:
    """What the `CACHEAPP` setting says, or its default where it says nothing."""

    demo: bool = False
    """Let programs on this machine do everything without a permission (`views/local_access.py`)."""

    workers: int | None = None
    """Worker processes that serve this project, for the system checks. `None`: unknown."""

    threads: int | None = None
    """Threads of one worker process, for the system checks. `None`: unknown."""

    state_dir: Path | None = None
    """Directory of small files that the workers of this machine share (counters). `None`: one
    under the system's temporary directory, named after the user and the project."""

    api_tokens: tuple[ApiToken, ...] = ()
    """Programs that may use the API without a session; for each the digest of its secret and its
    permissions."""

    download_root: Path | None = None
    """Directory under which downloads arrive. `None`: downloads are refused."""

    download_origins: tuple[str, ...] = ()
    """Origins (`scheme://host[:port]`) that may be fetched from. Empty: none."""

    download_networks: tuple[str, ...] = ()
    """Networks (`10.1.0.0/16`) that may be connected to although they are not public."""

    download_buckets: tuple[AllowedBucket, ...] = ()
    """Buckets, or prefixes of them, that may be downloaded over HTTP with this server's
    credentials. Empty: none."""

    download_max_threads: int = 200
    """Threads of one process for all its jobs, and those that one job may ask for."""

    download_max_machine_threads: int = 400
    """Threads of all processes of this machine together."""

    download_max_per_host: int = 200
    """Requests that one process has under way to one host at most."""

    download_tries: int = 5
    """How often a file is tried, where trying again may help."""

    download_max_job_bytes: int = 2**40
    """Bytes that all files of a job may have together."""

    download_max_job_s: float = 86_400.0
    """Seconds that a job may take."""

    download_min_free_bytes: int = 100 * 2**20
    """Bytes that downloads leave free on the disk."""

    download_max_files: int = 10_000
    """Files that one job may ask for."""

    download_max_bytes: int = 10 * 2**30
    """Bytes that one file may have."""

    download_runner: str = "worker"
    """Who runs jobs that come over HTTP: the "worker" that took the order, or "celery"."""

    download_streams: int = 4
    """Clients to whom one process tells a job's events at the same time: each takes a thread."""

    download_stream_s: float = 60.0
    """Seconds after which such a stream ends, and its client comes back."""

    download_heartbeat_s: float = 5.0
    """Seconds within which another process goes on with a job whose owner was lost."""

    download_retention_s: float | None = 30 * 86_400.0
    """Seconds after which finished jobs are forgotten. `None`: never. Their files stay."""


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("an int of at least 1")
    return value


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _count(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("a number of seconds above 0")
    return float(value)


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _directory(value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not Path(value).is_absolute():
        raise ValueError("None or an absolute path")
    return Path(value)


def _origins(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("a list of origins such as 'https://files.example.com'")
    return tuple(read_origin(item) for item in value)


def _networks(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("a list of networks such as '10.1.0.0/16'")
    try:
        return tuple(str(ipaddress.ip_network(item)) for item in value)
    except ValueError as exc:
        raise ValueError(f"networks such as '10.1.0.0/16' or 'fd00::/8'; {exc}") from None


def _runner(value: Any) -> str:
    if value not in ("worker", "celery"):
        raise ValueError("'worker' or 'celery'")
    return str(value)


_SECRET = frozenset(["api_tokens"])
"""Settings whose values no message shows."""

_READERS: dict[str, Callable[[Any], Any]] = {
    "demo": _boolean,
    "workers": _count_or_none,
    "threads": _count_or_none,
    "state_dir": _directory,
    "api_tokens": read_tokens,
    "download_root": _directory,
    "download_origins": _origins,
    "download_networks": _networks,
    "download_buckets": read_buckets,
    "download_max_threads": _count,
    "download_max_machine_threads": _count,
    "download_max_per_host": _count,
    "download_tries": _count,
    "download_max_job_bytes": _count,
    "download_max_job_s": _seconds,
    "download_min_free_bytes": _count,
    "download_max_files": _count,
    "download_max_bytes": _count,
    "download_runner": _runner,
    "download_streams": _count,
    "download_stream_s": _seconds,
    "download_heartbeat_s": _seconds,
    "download_retention_s": _seconds_or_none,
}


def read(raw: Any) -> tuple[Conf, list[str]]:
    """Return what `raw` (the `CACHEAPP` dict) says, and a sentence for each mistake in it."""
    if not isinstance(raw, dict):
        return Conf(), [f"CACHEAPP is {raw!r}; expected a dict"]
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    for name, value in raw.items():
        field = name.lower() if isinstance(name, str) and name.isupper() else None
        if field not in _READERS:
            known = ", ".join(sorted(key.upper() for key in _READERS))
            mistakes.append(f"CACHEAPP[{name!r}] is not a setting; expected one of {known}")
            continue
        try:
            values[field] = _READERS[field](value)
        except ValueError as exc:
            shown = "wrong" if field in _SECRET else repr(value)
            mistakes.append(f"CACHEAPP[{name!r}] is {shown}; expected {exc}")
    return Conf(**values), mistakes


@functools.cache
def conf() -> Conf:
    """Return the setting as read once; raise `ImproperlyConfigured` with all its mistakes."""
    found, mistakes = read(getattr(settings, "CACHEAPP", {}))
    if mistakes:
        raise ImproperlyConfigured("; ".join(mistakes))
    return found


def state_dir() -> Path:
    """Return the directory for small shared files; whoever uses it makes it, with mode 0700."""
    if found := conf().state_dir:
        return found
    project = f"{settings.SETTINGS_MODULE}:{getattr(settings, 'BASE_DIR', '')}"
    digest = hashlib.blake2b(project.encode(), digest_size=6).hexdigest()
    return Path(tempfile.gettempdir()) / f"cacheapp-{os.getuid()}-{digest}"


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "CACHEAPP":
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="cacheapp.conf")
