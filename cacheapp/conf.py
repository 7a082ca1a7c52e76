"""Read the `CACHEAPP` setting and report all its mistakes at once. Nothing else reads it."""

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

from cacheapp.access_settings import (
    AllowedBucket,
    AllowedWebhook,
    ApiToken,
    OriginHeaders,
    read_buckets,
    read_headers,
    read_origin,
    read_tokens,
    read_webhooks,
)
from cacheapp.typed_values import (
    Reader,
    boolean,
    byte_rate,
    none_or,
    one_of,
    read_values,
    seconds,
    show,
    text,
    whole_number,
)


@dataclasses.dataclass(frozen=True)
class Conf:
    """The values of the `CACHEAPP` setting, or their defaults."""

    demo: bool = False
    """Allow programs on this machine everything without a permission (`views/local_access.py`)."""

    workers: int | None = None
    """Number of worker processes of this project, for the system checks. `None`: unknown."""

    threads: int | None = None
    """Number of threads of one worker process, for the system checks. `None`: unknown."""

    state_dir: Path | None = None
    """Directory of small files that the workers of this machine share, such as counters. `None`: a
    directory in the system's temporary directory, named after the user and the project."""

    metrics: bool = False
    """Count the operations of each cache by name, duration and error, for `/metrics`."""

    ready_aliases: tuple[str, ...] = ()
    """The aliases without which this project cannot work: `/readyz` reads from each."""

    api_tokens: tuple[ApiToken, ...] = ()
    """Programs that use the API without a session: the digest of each secret, and its permissions."""

    download_root: Path | None = None
    """Directory for downloaded files. `None`: downloads are disabled."""

    download_origins: tuple[str, ...] = ()
    """Allowed origins (`scheme://host[:port]`) of downloads. Empty: none."""

    download_networks: tuple[str, ...] = ()
    """Private networks (`10.1.0.0/16`) that downloads may connect to."""

    download_buckets: tuple[AllowedBucket, ...] = ()
    """Buckets, or prefixes in them, that the API may download with this server's credentials.
    Empty: none."""

    download_headers: tuple[OriginHeaders, ...] = ()
    """Headers such as `Authorization` that are sent to an origin, and to no other on a redirect."""

    download_webhooks: tuple[AllowedWebhook, ...] = ()
    """Receivers that may be notified of the end of a job, with the keys that sign. Empty: none."""

    download_webhook_s: float = 10.0
    """Longest duration of one attempt to notify a receiver, in seconds."""

    download_webhook_tries: int = 15
    """Maximum attempts to notify a receiver, over several hours."""

    download_proxy: bool = False
    """Send the requests of jobs created over HTTP through `HTTP_PROXY` and `HTTPS_PROXY`. The address of
    a host cannot be checked then: only `download_origins` decides."""

    download_max_threads: int = 200
    """Maximum threads of one process for all its jobs, and of one job."""

    download_max_machine_threads: int = 400
    """Maximum threads of all processes of this machine together."""

    download_max_per_host: int = 200
    """Maximum concurrent requests of one process to one host."""

    download_max_rate: int | None = None
    """Maximum bytes per second that all processes of this machine fetch together. `None`: no limit."""

    download_max_process_rate: int | None = None
    """Maximum bytes per second that one process fetches. `None`: no limit."""

    download_parts: int = 8
    """Maximum connections for one large file of a job that does not set its own number."""

    download_split_from_bytes: int = 64 * 2**20
    """A file with so many missing bytes is fetched in parts."""

    download_tries: int = 5
    """Maximum attempts per file, if the error is temporary. An attempt that brought
    `download_stall_bytes` that stay on disk does not count."""

    download_connect_s: float = 10.0
    """Seconds to connect to one address of a host."""

    download_read_s: float = 60.0
    """Longest silence on a connection, in seconds."""

    download_stall_s: float = 60.0
    """Seconds without `download_stall_bytes` of a file after which the attempt ends."""

    download_stall_bytes: int = 16 * 1024
    """Bytes that count as progress."""

    download_max_retry_after_s: float = 300.0
    """Longest `Retry-After` that is waited for, in seconds. A longer one fails the file."""

    download_max_job_bytes: int = 2**40
    """Maximum bytes of all files of a job together."""

    download_max_job_s: float = 86_400.0
    """Maximum duration of a job, in seconds."""

    download_min_free_bytes: int = 100 * 2**20
    """Bytes of the disk that downloads leave free."""

    download_max_files: int = 10_000
    """Maximum files of a job."""

    download_max_bytes: int = 10 * 2**30
    """Maximum bytes of a file."""

    download_runner: str = "worker"
    """What runs the jobs created over HTTP: the "worker" that received the request, "celery", or
    "tasks", Django's Tasks framework (Django 6)."""

    download_tasks_backend: str = "default"
    """The entry of Django's setting `TASKS` that runs jobs if the runner is "tasks"."""

    download_streams: int = 4
    """Maximum of event streams, and of files, that one process sends at the same time. Each occupies a thread."""

    download_stream_s: float = 60.0
    """Seconds after which an event stream ends and its client reconnects."""

    download_heartbeat_s: float = 5.0
    """Seconds within which another process resumes a job whose owner was lost."""

    download_max_user_jobs: int = 1_000
    """Maximum unfinished jobs of one user or token: queued, running and paused."""

    download_max_user_files: int = 1_000_000
    """Maximum files that are still to be fetched in all unfinished jobs of one user or token."""

    download_audit_retention_s: float | None = 365 * 86_400.0
    """Seconds after which entries of the audit trail are deleted. `None`: never."""

    download_retention_s: float | None = 30 * 86_400.0
    """Seconds after which finished jobs are deleted. `None`: never. Their files are kept."""


def _directory(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or not Path(value).is_absolute():
        raise ValueError("an absolute path")
    return Path(value)


def _aliases(value: Any) -> tuple[str, ...]:
    known = isinstance(value, list | tuple) and all(it in settings.CACHES for it in value)
    if not known:
        raise ValueError(f"a list of names in CACHES, which has {', '.join(settings.CACHES)}")
    return tuple(value)


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


def _timeout(value: Any) -> float:
    if (found := seconds(value)) > _MAX_TIMEOUT_S:
        raise ValueError(f"a number of seconds above 0, at most {_MAX_TIMEOUT_S}")
    return found


MAX_PARTS = 64
MIN_SPLIT_BYTES = 2**20
_MAX_TIMEOUT_S = 86_400
_SECRET = frozenset(["API_TOKENS", "DOWNLOAD_HEADERS", "DOWNLOAD_WEBHOOKS"])
"""Settings whose values are not shown in messages."""

_READERS: dict[str, Reader] = {
    "DEMO": boolean,
    "WORKERS": none_or(whole_number(1)),
    "THREADS": none_or(whole_number(1)),
    "STATE_DIR": none_or(_directory),
    "METRICS": boolean,
    "READY_ALIASES": _aliases,
    "API_TOKENS": read_tokens,
    "DOWNLOAD_ROOT": none_or(_directory),
    "DOWNLOAD_ORIGINS": _origins,
    "DOWNLOAD_NETWORKS": _networks,
    "DOWNLOAD_BUCKETS": read_buckets,
    "DOWNLOAD_HEADERS": read_headers,
    "DOWNLOAD_WEBHOOKS": read_webhooks,
    "DOWNLOAD_WEBHOOK_S": _timeout,
    "DOWNLOAD_WEBHOOK_TRIES": whole_number(1),
    "DOWNLOAD_PROXY": boolean,
    "DOWNLOAD_MAX_THREADS": whole_number(1),
    "DOWNLOAD_MAX_MACHINE_THREADS": whole_number(1),
    "DOWNLOAD_MAX_PER_HOST": whole_number(1),
    "DOWNLOAD_MAX_RATE": none_or(byte_rate),
    "DOWNLOAD_MAX_PROCESS_RATE": none_or(byte_rate),
    "DOWNLOAD_PARTS": whole_number(1, MAX_PARTS),
    "DOWNLOAD_SPLIT_FROM_BYTES": whole_number(MIN_SPLIT_BYTES),
    "DOWNLOAD_TRIES": whole_number(1),
    "DOWNLOAD_CONNECT_S": _timeout,
    "DOWNLOAD_READ_S": _timeout,
    "DOWNLOAD_STALL_S": _timeout,
    "DOWNLOAD_STALL_BYTES": whole_number(1),
    "DOWNLOAD_MAX_RETRY_AFTER_S": _timeout,
    "DOWNLOAD_MAX_JOB_BYTES": whole_number(1),
    "DOWNLOAD_MAX_JOB_S": seconds,
    "DOWNLOAD_MIN_FREE_BYTES": whole_number(1),
    "DOWNLOAD_MAX_FILES": whole_number(1),
    "DOWNLOAD_MAX_BYTES": whole_number(1),
    "DOWNLOAD_RUNNER": one_of("worker", "celery", "tasks"),
    "DOWNLOAD_TASKS_BACKEND": text,
    "DOWNLOAD_STREAMS": whole_number(1),
    "DOWNLOAD_STREAM_S": seconds,
    "DOWNLOAD_HEARTBEAT_S": seconds,
    "DOWNLOAD_MAX_USER_JOBS": whole_number(1),
    "DOWNLOAD_MAX_USER_FILES": whole_number(1),
    "DOWNLOAD_AUDIT_RETENTION_S": none_or(seconds),
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
    """Return the settings, read once; raise `ImproperlyConfigured` with all mistakes."""
    found, mistakes = read(getattr(settings, "CACHEAPP", {}))
    if mistakes:
        raise ImproperlyConfigured("; ".join(mistakes))
    return found


def reader_of(setting: str) -> Reader:
    """Return the function that reads the value of a setting, or raises `ValueError`."""
    return _READERS[setting]


def state_dir() -> Path:
    """Return the directory for small shared files. The caller creates it, with mode 0700."""
    if found := conf().state_dir:
        return found
    project = f"{settings.SETTINGS_MODULE}:{getattr(settings, 'BASE_DIR', '')}"
    digest = hashlib.blake2b(project.encode(), digest_size=6).hexdigest()
    return Path(tempfile.gettempdir()) / f"cacheapp-{os.getuid()}-{digest}"


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "CACHEAPP":
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="cacheapp.conf")
