"""The one reader of the `CACHEAPP` setting: a dict whose every mistake is reported at once."""

import dataclasses
import functools
import hashlib
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from cacheapp.access_settings import AllowedBucket, ApiToken, read_buckets, read_origin, read_tokens
from cacheapp.typed_values import (
    Reader,
    boolean,
    none_or,
    one_of,
    read_values,
    seconds,
    show,
    whole_number,
)


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


def _directory(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or not Path(value).is_absolute():
        raise ValueError("an absolute path")
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


_SECRET = frozenset(["API_TOKENS"])
"""Settings whose values no message shows."""

_READERS: dict[str, Reader] = {
    "DEMO": boolean,
    "WORKERS": none_or(whole_number(1)),
    "THREADS": none_or(whole_number(1)),
    "STATE_DIR": none_or(_directory),
    "API_TOKENS": read_tokens,
    "DOWNLOAD_ROOT": none_or(_directory),
    "DOWNLOAD_ORIGINS": _origins,
    "DOWNLOAD_NETWORKS": _networks,
    "DOWNLOAD_BUCKETS": read_buckets,
    "DOWNLOAD_MAX_THREADS": whole_number(1),
    "DOWNLOAD_MAX_MACHINE_THREADS": whole_number(1),
    "DOWNLOAD_MAX_PER_HOST": whole_number(1),
    "DOWNLOAD_TRIES": whole_number(1),
    "DOWNLOAD_MAX_JOB_BYTES": whole_number(1),
    "DOWNLOAD_MAX_JOB_S": seconds,
    "DOWNLOAD_MIN_FREE_BYTES": whole_number(1),
    "DOWNLOAD_MAX_FILES": whole_number(1),
    "DOWNLOAD_MAX_BYTES": whole_number(1),
    "DOWNLOAD_RUNNER": one_of("worker", "celery"),
    "DOWNLOAD_STREAMS": whole_number(1),
    "DOWNLOAD_STREAM_S": seconds,
    "DOWNLOAD_HEARTBEAT_S": seconds,
    "DOWNLOAD_RETENTION_S": none_or(seconds),
}


def read(raw: Any) -> tuple[Conf, list[str]]:
    """Return the settings in `raw`, the `CACHEAPP` dict, and a sentence for each mistake in it."""
    if not isinstance(raw, dict):
        return Conf(), [f"CACHEAPP is {show(raw)}; expected a dict"]
    values, mistakes = read_values(raw, _READERS, "a setting", secret=_SECRET)
    found = Conf(**{name.lower(): value for name, value in values.items()})
    return found, [f"CACHEAPP[{it.name!r}] {it.error}" for it in mistakes]


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
