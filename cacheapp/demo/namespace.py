"""Access to the demo's own keys in any alias, and to no others.

A demo key `x` is stored as `cacheapp.demo:x` under a version that nothing else uses, so no caller
of the demo can reach a key of the application. Errors of other backends become cacheapp's here.
"""

import contextlib
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import django.db
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.cache.backends.locmem import LocMemCache

from cacheapp.errors import ClearRefused, OutcomeUnknown, StoreUnavailable

VERSION = 7_703_366  # higher than the versions of any application
_PREFIX = "cacheapp.demo:"
_MISSING = object()

# What the packages of other backends raise when their store does not respond.
_FOREIGN_ERRORS = (
    ("redis", "RedisError"),
    ("django_redis.exceptions", "ConnectionInterrupted"),
    ("diskcache", "Timeout"),
    ("diskcache_community", "Timeout"),
)


def _loaded(names: Iterable[tuple[str, str]]) -> Iterator[type[Exception]]:
    """Yield the exceptions whose module is loaded; a backend that raises one has loaded it."""
    for module, name in names:
        if (found := sys.modules.get(module)) is not None:
            yield getattr(found, name)


def _store_errors() -> tuple[type[Exception], ...]:
    return (OSError, sqlite3.Error, django.db.Error, *_loaded(_FOREIGN_ERRORS))


def aliases() -> list[str]:
    """Return the aliases of `CACHES`, without `default` if another alias has the same entry."""
    default = settings.CACHES.get("default")
    named = [alias for alias in settings.CACHES if alias != "default"]
    twin = any(settings.CACHES[alias] == default for alias in named)
    return named if twin or default is None else ["default", *named]


class DemoCache:
    """The demo's keys in an alias. Created for one request.

    Raises `StoreUnavailable`, `OutcomeUnknown` and `StoreFull` as cacheapp's backends do.
    """

    def __init__(self, alias: str) -> None:
        """Raise `InvalidCacheBackendError` for an alias that `CACHES` does not have."""
        self.alias = alias
        self._cache: BaseCache = caches[alias]

    def get(self, key: str) -> tuple[Any, bool]:
        """Return the value and whether there was one."""
        with _reading():
            value = self._cache.get(_PREFIX + key, _MISSING, version=VERSION)
        return (None, False) if value is _MISSING else (value, True)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT) -> None:
        """Store the value."""
        with _changing():
            self._cache.set(_PREFIX + key, value, timeout, version=VERSION)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT) -> bool:
        """Store the value if the key is absent; return whether this call did."""
        with _changing():
            return bool(self._cache.add(_PREFIX + key, value, timeout, version=VERSION))

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT) -> bool:
        """Give the key a new timeout; return whether it was there."""
        with _changing():
            return bool(self._cache.touch(_PREFIX + key, timeout, version=VERSION))

    def delete(self, key: str) -> bool:
        """Remove the key; return whether it was there."""
        with _changing():
            return bool(self._cache.delete(_PREFIX + key, version=VERSION))

    def incr(self, key: str, delta: int) -> int:
        """Add to a number. `ValueError`: no such key; `TypeError`: it holds no number."""
        with _changing():
            try:
                return self._cache.incr(_PREFIX + key, delta, version=VERSION)
            except tuple(_loaded([("redis", "ResponseError")])) as exc:
                # Django's RedisCache leaves the check to the server.
                raise TypeError(str(exc)) from exc

    def clear(self) -> int:
        """Remove the demo's keys and no others; return how many. `ClearRefused` if it cannot."""
        with _changing():
            if hasattr(self._cache, "delete_pattern"):
                return int(self._cache.delete_pattern(_PREFIX + "*", version=VERSION))
            return sum(
                self._cache.delete(_PREFIX + key, version=VERSION) for key in self._local_keys()
            )

    def _local_keys(self) -> list[str]:
        """Return the demo's keys of a LocMemCache, in this worker's memory; else raise `ClearRefused`."""
        if not isinstance(self._cache, LocMemCache) or self._cache.key_func is not default_key_func:
            raise ClearRefused(
                f"alias {self.alias!r}: {type(self._cache).__name__} cannot list its keys, so the "
                "demo's keys cannot be distinguished from others; nothing was removed"
            )
        prefix = self._cache.make_key(_PREFIX, version=VERSION)
        inside: Any = self._cache  # LocMemCache has no public way to list its keys
        with inside._lock:  # noqa: SLF001
            finals = list(inside._cache)  # noqa: SLF001
        return [final[len(prefix) :] for final in finals if final.startswith(prefix)]


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _store_errors() as exc:
        raise StoreUnavailable(f"{type(exc).__name__}: {exc}") from exc


@contextlib.contextmanager
def _changing() -> Iterator[None]:
    """Translate errors of a change: other backends do not report whether it happened."""
    try:
        yield
    except _store_errors() as exc:
        raise OutcomeUnknown(f"{type(exc).__name__}: {exc}") from exc
