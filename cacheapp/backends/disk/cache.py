"""DiskCache, the class that `CACHES` names: its options, its directories, and diskcache's tags."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from django.core.cache.backends.base import DEFAULT_TIMEOUT, default_key_func, get_key_func

from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.counters import (
    COMMON_NAMES,
    EVICTIONS,
    EXPIRATIONS,
    REMOVED_NAMES,
    SETS,
)
from cacheapp.backends.core.options import COMMON, Option, read_options
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.core.store import registry
from cacheapp.backends.disk.shard import CountCulled
from cacheapp.backends.disk.store import DiskStore
from cacheapp.backends.local.shared_directory import resolve_location
from cacheapp.typed_values import boolean, one_of, seconds, whole_number

_SHARD_MIN_BYTES = 512 * 1024
_MAX_PREFIX_CHARS = 100  # in a file name, which has at most 255 bytes
_MOVED_TO_OPTIONS = {"SHARDS": "shards", "DATABASE_TIMEOUT": "database_timeout"}
_DJANGO_ONLY = frozenset(["MAX_ENTRIES", "CULL_FREQUENCY"])


class DiskCache(SharedCache):
    """A cache in a directory of this machine, on `diskcache`: for large values, kept across restarts.

    `LOCATION` is a directory; each alias and KEY_PREFIX has its own subdirectory in it. Equal
    entries of `CACHES` are one cache, under the name of the first. Caches that are built without an
    alias but with the same location and KEY_PREFIX are also one cache, and must have equal options.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "signed": Option(boolean, default=True),  # 1.6 us of a `get`: docs/why.md
        "shards": Option(whole_number(1), 8),
        "database_timeout": Option(seconds, 5.0),
        "size_limit": Option(whole_number(_SHARD_MIN_BYTES), 2**30),
        "cull_limit": Option(whole_number(1), 10),
        "eviction_policy": Option(
            one_of("none", "least-recently-stored", "least-recently-used", "least-frequently-used"),
            "least-recently-stored",
        ),
        "disk_min_file_size": Option(whole_number(0), 2**15),
        "tag_index": Option(boolean, default=False),
        # diskcache's 8192 pages would be 32 MiB for each thread and shard.
        "sqlite_cache_size": Option(whole_number(1), 512),
        # diskcache maps 64 MiB: truncating a mapped file kills the process (SIGBUS).
        "sqlite_mmap_size": Option(whole_number(0), 0),
        "sqlite_synchronous": Option(whole_number(0), 1),
    }

    COUNTERS: ClassVar[Sequence[str]] = (*COMMON_NAMES, *REMOVED_NAMES)

    _store: DiskStore

    def stats(self) -> dict[str, int]:
        """Return the counters of this alias, and what its directory contains."""
        return {**super().stats(), **self._store.figures()}

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`."""
        options = params.get("OPTIONS", {})
        rest = {name: value for name, value in params.items() if name not in _MOVED_TO_OPTIONS}
        found = [
            f"{name!r} is not a key beside OPTIONS; expected OPTIONS[{option!r}]"
            for name, option in _MOVED_TO_OPTIONS.items()
            if name in params
        ]
        if isinstance(options, Mapping):
            found += [
                f"OPTIONS[{name!r}] is not supported: this cache is limited in bytes, not in "
                "entries; expected OPTIONS['size_limit'] and OPTIONS['cull_limit']"
                for name in sorted(_DJANGO_ONLY.intersection(options))
            ]
            rest["OPTIONS"] = {
                name: value for name, value in options.items() if name not in _DJANGO_ONLY
            }
        found += super().mistakes(location, rest) + _location_mistakes(location)
        return found or _shard_mistakes(params, cls.OPTIONS)

    def _shared_store(self) -> DiskStore:
        routed = self.key_prefix if self.key_func is default_key_func else None
        directory = resolve_location(self.location)
        name = _directory_name(self.alias, self.key_prefix)
        own = {name: value for name, value in self.options.items() if name not in COMMON}
        key = ("disk", directory, name, routed, tuple(sorted(own.items())))
        store = registry.get_or_create(
            key, lambda: DiskStore(directory, name, routed, own, self._counters_of_culled())
        )
        assert isinstance(store, DiskStore)  # noqa: S101 (for the type checker)
        return store

    def _counters_of_culled(self) -> CountCulled:
        """Return a function that counts for this alias, without a reference to this object."""
        add = self._counters.add

        def count(evictions: int, expirations: int) -> None:
            add(EVICTIONS, evictions)
            add(EXPIRATIONS, expirations)

        return count

    # -- diskcache's tags --------------------------------------------------------------------

    def set(  # noqa: PLR0913 (diskcache's and django-redis's arguments)
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        tag: str | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """Store the value as in Django's API, with an optional tag for `evict`."""
        if tag is None:
            return super().set(
                key, value, timeout, version, stale=stale, jitter=jitter, nx=nx, xx=xx
            )
        if nx or xx:
            raise TypeError("set() does not take a tag with nx or xx; use add(…, tag=…) for nx")
        final, payload, ttl = self._entry(key, value, timeout, version, stale, jitter)
        if ttl is not None and ttl <= 0:
            self._store.delete(final)
        else:
            self._store.set(final, payload, ttl, tag)
            self._count(SETS)
        return None

    def add(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        tag: str | None = None,
    ) -> bool:
        """Store the value if the key is absent, with an optional tag for `evict`."""
        ttl = self._ttl(timeout)
        if tag is None or (ttl is not None and ttl <= 0):
            return super().add(key, value, timeout, version)
        final = self.make_and_validate_key(key, version=version)
        payload = self._codec.encode(final, value, self._store.check_size)
        added = self._store.add(final, payload, ttl, tag)
        self._count(SETS, added)
        return added

    def evict(self, tag: str) -> int:
        """Remove all entries with this tag; return how many. Not atomic."""
        return self._store.evict(tag)

    async def aset(  # noqa: PLR0913 (as `set`)
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        tag: str | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """Do the same as `set`."""
        how = {"stale": stale, "jitter": jitter, "nx": nx, "xx": xx}
        return await self._run_storing([value], self.set, key, value, timeout, version, tag, **how)

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        tag: str | None = None,
    ) -> bool:
        """Do the same as `add`."""
        return await self._run_storing([value], self.add, key, value, timeout, version, tag)

    async def aevict(self, tag: str) -> int:
        """Do the same as `evict`."""
        return await in_thread(self.evict, tag)


def _directory_name(alias: str | None, key_prefix: str) -> str:
    """Return the name of the alias's directory: the alias and, after an "@", its KEY_PREFIX.

    The prefix is included because two projects may share a LOCATION and each have an alias
    `default`: clearing one must not clear the other, and their numbers of shards may differ.
    """
    prefix = quote(key_prefix, safe="")
    if len(prefix) > _MAX_PREFIX_CHARS:
        prefix = hashlib.blake2b(key_prefix.encode(), digest_size=16).hexdigest()
    if alias is None:
        return "by-hand" + (f"-{prefix}" if prefix else "")
    quoted = quote(alias, safe="")
    quoted = quoted if not quoted.startswith(".") else "%2E" + quoted[1:]
    return f"{quoted}@{prefix}" if prefix else quoted


def _location_mistakes(location: Any) -> list[str]:
    if not isinstance(location, str | os.PathLike) or not str(location):
        return [f"LOCATION is {location!r}; expected the path of a directory"]
    if os.path.expandvars(os.path.expanduser(str(location))) != str(location):
        return [f"LOCATION is {location!r}, which diskcache would expand; expected a plain path"]
    return []


def _shard_mistakes(params: Mapping[str, Any], known: Mapping[str, Option]) -> list[str]:
    """Return a sentence for each mistake in the number of shards; each option alone is valid."""
    given = params.get("OPTIONS", {})
    options, _ = read_options(given, known)
    shards = options["shards"]
    own_keys = get_key_func(params.get("KEY_FUNCTION")) is not default_key_func
    found = []
    if own_keys and given.get("shards", 1) != 1:
        found.append(
            f"OPTIONS['shards'] is {shards}; expected 1 with a KEY_FUNCTION, which may hide "
            "the version: all versions of a key must be in one shard"
        )
    if not own_keys and options["size_limit"] < shards * _SHARD_MIN_BYTES:
        found.append(
            f"OPTIONS['size_limit'] is {options['size_limit']}; expected at least "
            f"{_SHARD_MIN_BYTES} for each of the {shards} shards"
        )
    return found
