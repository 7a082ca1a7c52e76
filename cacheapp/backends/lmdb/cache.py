"""LMDBCache: what `CACHES` names, and its options."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lmdb
from django.conf import settings
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    default_key_func,
    memcached_error_chars_re,
)
from django.utils.module_loading import import_string

from cacheapp import clock
from cacheapp.backends.counters import HITS, MISSES, SETS
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.inline import InlineTwins
from cacheapp.backends.lmdb.limits import LEAST_BYTES, Limits
from cacheapp.backends.lmdb.marks import RETIRED
from cacheapp.backends.lmdb.names import Names
from cacheapp.backends.lmdb.records import FORMAT, HEAD_BYTES, PLAIN
from cacheapp.backends.lmdb.shared import shared_environment
from cacheapp.backends.lmdb.store import LMDBStore
from cacheapp.backends.options import COMMON, Option, count, count_or_none, read_options
from cacheapp.backends.shared import FOR_EVER_S, SharedCache
from cacheapp.backends.store import registry

_unsafe_char = memcached_error_chars_re.search
_times = struct.Struct("<d8xQ").unpack_from  # deadline and number, as `records.HEAD` has them
_TIMES_AT = 8
_PLAIN = bytes([FORMAT, PLAIN])
_SHORT = 4096  # bytes that are sooner copied than viewed
_UNCLEAR = bytes(HEAD_BYTES + 1)  # a header of no format: the careful way will tell
_OF_DIRECTORY = ("size_limit", "MAX_ENTRIES")


class LMDBCache(InlineTwins, SharedCache):
    """A cache in a memory-mapped file of this host: one copy for all workers, read without locks.

    `LOCATION` is a directory. Aliases with one LOCATION share its room, and must agree in the
    options about that; those with other prefixes do not see each other's keys. The cache starts
    empty when the machine does.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "size_limit": Option(count(LEAST_BYTES), 256 * 2**20),
        "MAX_ENTRIES": Option(count_or_none(1), None),
    }

    _store: LMDBStore

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`."""
        found = super().mistakes(location, params) + _location_mistakes(location)
        return found or _conflicts(location, params, cls.OPTIONS)

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        store: Any = self._store
        refused = not isinstance(store, LMDBStore)  # then every use says what is wrong
        self._environment: Environment = store if refused else store.environment
        self._space: bytes = b"" if refused else store.names.space
        self._plain = self._codec.unsigned_head or None  # None: no value is looked at in short

    def get(  # noqa: C901 (in one piece for speed)
        self, key: Any, default: Any = None, version: int | None = None
    ) -> Any:
        """Return the value, or `default`. A cached `None` is returned as `None`.

        It does what `SharedCache.get` does, in one piece for the sake of speed, where all is as it
        mostly is: the files were looked at in this request and second, the key is short, the value
        is no integer, no lease, neither signed nor compressed. All else goes there.
        """
        final = self.make_key(key, version=version)
        if len(final) > MEMCACHE_MAX_KEY_LENGTH or _unsafe_char(final):
            return super().get(key, default, version)
        environment = self._environment
        try:
            handle = environment.here.handle
        except AttributeError:
            handle = environment.handle()
        now = clock.boot_s()
        handle.inside += 1  # before the session is looked at: see `environment`
        session = environment.session
        raw: bytes | None = _UNCLEAR
        try:
            if session is not None and now < environment.look_at_s:
                raw = session.begin(session.entries).get(self._space + final.encode())
                if session.head[RETIRED]:
                    raw = _UNCLEAR
        except (lmdb.Error, UnicodeEncodeError):
            pass
        finally:
            handle.inside -= 1
        if raw is None:
            self._count(MISSES)
            return default
        if raw[:2] == _PLAIN and raw[HEAD_BYTES : HEAD_BYTES + 1] == self._plain:
            deadline, number = _times(raw, _TIMES_AT)
            if now < deadline:
                marks = session.marks  # type: ignore[union-attr]  # it was found in it
                if not marks.used[number & marks.mask]:
                    marks.used[number & marks.mask] = 1
                try:
                    value = self._codec.loads(
                        raw[HEAD_BYTES + 1 :]
                        if len(raw) < _SHORT
                        else memoryview(raw)[HEAD_BYTES + 1 :]
                    )
                except Exception:  # noqa: BLE001 (told below)
                    return super().get(key, default, version)
                self._count(HITS)
                return value
        return super().get(key, default, version)

    def set(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> None:
        """Store the value; see `SharedCache.set`, of which this is the usual case in one piece."""
        final = self.make_key(key, version=version)
        ttl = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        usual = ttl is None or (type(ttl) is int and 0 < ttl < FOR_EVER_S)
        if (
            stale
            or jitter
            or not usual
            or len(final) > MEMCACHE_MAX_KEY_LENGTH
            or _unsafe_char(final)
        ):
            super().set(key, value, timeout, version, stale=stale, jitter=jitter)
            return
        self._store.set(final, self._codec.encode(final, value), ttl)
        self._count(SETS)

    def stats(self) -> dict[str, int]:
        """Return what was counted for this alias, and what its whole directory holds."""
        return {**super().stats(), **self._store.figures()}

    def _shared_store(self) -> LMDBStore:
        place = Path(os.path.abspath(self.location))
        limits = Limits(self.options["size_limit"], self.options["MAX_ENTRIES"])
        shared = shared_environment(place, limits)
        function = "" if self.key_func is default_key_func else _named(self.key_func)
        key = ("lmdb", place, self.key_prefix, function)
        return registry.shared(key, lambda: LMDBStore(shared, Names(self.key_prefix, function)))


def _named(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _location_mistakes(location: Any) -> list[str]:
    if not isinstance(location, str | os.PathLike) or not str(location):
        return [f"LOCATION is {location!r}; expected the path of a directory"]
    return []


def _conflicts(location: Any, params: Mapping[str, Any], known: Mapping[str, Option]) -> list[str]:
    """Return which options of the directory another alias gives another value."""
    options, _ = read_options(params.get("OPTIONS", {}), known)
    found = []
    for alias, entry in settings.CACHES.items():
        if not _is_here(entry, location):
            continue
        others, _ = read_options(entry.get("OPTIONS", {}), known)
        found += [
            f"OPTIONS[{name!r}] is {options[name]}, and {others[name]} for CACHES[{alias!r}] with "
            "the same LOCATION; expected one value for one directory"
            for name in _OF_DIRECTORY
            if others[name] != options[name]
        ]
    return found


def _is_here(entry: Mapping[str, Any], location: Any) -> bool:
    try:
        backend = import_string(entry["BACKEND"])
        there = os.path.abspath(entry.get("LOCATION", ""))
    except (ImportError, KeyError, TypeError):
        return False
    return issubclass(backend, LMDBCache) and there == os.path.abspath(location)
