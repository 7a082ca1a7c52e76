"""Whether this process can do its work: the database, caches, and the directory of downloads.

The answers name what fails, and never why in the words of a driver, which may contain hosts and users:
the log has those. A result is kept for a second, so that any number of probes costs one check.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.db import connections
from django.db.utils import Error as DatabaseError

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.conf import conf
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)

OK = "ok"
_KEPT_S = 1.0
_PROBE_KEY = "cacheapp.readyz"


def check_all() -> dict[str, str]:
    """Return the state of each part: `ok`, or what is wrong with it."""
    return dict([*_databases(), *_caches(), *_download_root()])


def _databases() -> Iterator[tuple[str, str]]:
    if not settings.DATABASES.get("default", {}).get("ENGINE", ".dummy").endswith(".dummy"):
        yield "database", _database_state()


def _database_state() -> str:
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError as exc:
        return _failed("database", exc, "does not respond")
    return OK


def _caches() -> Iterator[tuple[str, str]]:
    for alias in conf().ready_aliases:
        yield f"cache {alias}", _cache_state(alias)


def _cache_state(alias: str) -> str:
    try:
        cache = caches[alias]
        if isinstance(cache, SharedCache):
            cache.ping()
        else:
            cache.get(_PROBE_KEY)
    except Exception as exc:
        if is_interruption(exc):
            raise
        return _failed(f"cache {alias}", exc, "cannot be read")
    return OK


def _download_root() -> Iterator[tuple[str, str]]:
    root = conf().download_root
    if root is None or not apps.is_installed("cacheapp.downloads"):
        return
    place = _existing(root)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield "download root", "cannot be written"
        return
    yield "download root", OK
    with contextlib.suppress(OSError):  # removed at this moment: the next probe sees it
        free = shutil.disk_usage(place).free
        enough = free >= conf().download_min_free_bytes
        yield "disk space", OK if enough else f"{free} bytes free; downloads have stopped"


def _existing(path: Path) -> Path:
    """Return the path, or the directory in which it will be created."""
    return next((each for each in (path, *path.parents) if each.exists()), path)


def _failed(part: str, error: Exception, state: str) -> str:
    logger.warning(
        "not ready: %s %s: %s", part, state, error, extra={"event": "readiness_check_failed"}
    )
    return state


class _Readiness:
    """The last result of this process. `_lock` guards it; a forked child replaces both."""

    def __init__(self) -> None:
        self._reset()
        forks.register(in_child=self._reset)

    def _reset(self) -> None:
        self._lock = reentrant_lock()
        self._found: Mapping[str, str] = {}
        self._until_s = float("-inf")

    def states(self) -> Mapping[str, str]:
        """Return the states, at most a second old; while they are checked, others get the last ones."""
        if clock.monotonic_s() < self._until_s:
            return self._found
        if not self._lock.acquire(blocking=not self._found):
            return self._found
        try:
            if clock.monotonic_s() >= self._until_s:
                self._found = check_all()
                self._until_s = clock.monotonic_s() + _KEPT_S
            return self._found
        finally:
            self._lock.release()


_readiness = _Readiness()
states = _readiness.states
