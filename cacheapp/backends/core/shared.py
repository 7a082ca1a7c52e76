"""`SharedCache`, the base of all backends here: the whole cache API on top of a `Store`."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from django.conf import settings
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    memcached_error_chars_re,
)

from cacheapp import clock, conf
from cacheapp.backends.core import extended_api, timeouts
from cacheapp.backends.core.alias import alias_of
from cacheapp.backends.core.async_methods import AsyncMethods
from cacheapp.backends.core.codec import Codec
from cacheapp.backends.core.counters import (
    COMMON_NAMES,
    DELETES,
    HITS,
    MISSES,
    SETS,
    Counters,
    counters,
)
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.locks import Lock, LockOptions
from cacheapp.backends.core.measured_methods import CACHE_METHODS, LOCK_METHODS
from cacheapp.backends.core.misconfigured import Misconfigured
from cacheapp.backends.core.operation import UNNAMED
from cacheapp.backends.core.operations import watch
from cacheapp.backends.core.options import (
    OPTIONS_ELSEWHERE,
    Option,
    read_options,
    read_params,
    timeout_of,
    version_of,
)
from cacheapp.backends.core.single_flight import Fill, SingleFlight
from cacheapp.backends.core.store import NotCountable, Store
from cacheapp.backends.core.timeouts import Lifetime
from cacheapp.backends.core.value_changes import ValueChanges
from cacheapp.backends.core.value_decoder import ValueDecoder

_unsafe_char = memcached_error_chars_re.search


@extended_api.explain_arguments
class SharedCache(AsyncMethods, abc.ABC):
    """A cache that all threads and processes share; docs/guarantees.md lists its promises.

    Django builds one object per alias and thread, and calls `close()` after each request. The
    objects hold no connection: expensive resources belong to a `Store` that the process shares.
    """

    OPTIONS: ClassVar[Mapping[str, Option]]
    """The options of this backend."""

    OPTIONS_ELSEWHERE: ClassVar[Mapping[str, str]] = OPTIONS_ELSEWHERE
    """Options of other backends, and what takes their place in this one."""

    COUNTERS: ClassVar[Sequence[str]] = COMMON_NAMES
    """The names in `stats()`."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        mistakes = self.mistakes(location, params)
        mistakes += conf.read(getattr(settings, "CACHEAPP", {}))[1]
        super().__init__({**params, "OPTIONS": {}})
        if not mistakes:
            self.default_timeout = timeout_of(params)  # BaseCache truncates it to an int
            self.version = version_of(params)  # BaseCache keeps a str, which has no delta
        self.key_end = extended_api.key_end_of(self.key_func)
        self.location = location
        self.params = params
        self.options, _ = read_options(params.get("OPTIONS", {}), self.OPTIONS)
        self._codec = self._new_codec()
        self.alias = alias_of(type(self), location, params)
        self._counters: Counters
        self._count: Callable[..., None]
        self._store: Store
        if mistakes:
            # Not raised here: Django's own checks build every cache, and ours report all mistakes.
            stub: Any = Misconfigured(f"CACHES[{self.alias!r}]: " + "; ".join(mistakes))
            self._counters = self._count = self._store = stub
        else:
            name = "unnamed" if self.alias is None else quote(self.alias, safe="")
            self._counters = counters(conf.state_dir() / f"counters-{name}")
            self._count = self._counters.add
            self._store = self._shared_store()
        self._decoder = ValueDecoder(self._codec, self._store, self._count, type(self).__name__)
        self._decode = self._decoder.decode
        self._changes = ValueChanges(self._store, self._codec, self._decoder)
        self._single_flight = SingleFlight(
            self._store, self._codec, self.options, self._count, self._decode
        )
        watch(type(self), CACHE_METHODS)

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return one sentence per mistake in an entry of `CACHES`; access no store."""
        del location  # each backend checks its own
        options = params.get("OPTIONS", {})
        return read_params(params) + read_options(options, cls.OPTIONS, cls.OPTIONS_ELSEWHERE)[1]

    def _new_codec(self) -> Codec:
        """Return the codec of these options."""
        return Codec(
            self.options["serializer"],
            self.options["compress_min_bytes"],
            signed=self.options["signed"],
        )

    @abc.abstractmethod
    def _shared_store(self) -> Store:
        """Return this process's store for these options, without connecting."""

    # -- keys, deadlines, values -------------------------------------------------------------

    def validate_key(self, key: Any) -> None:
        """Warn about keys that memcached would refuse, as Django documents."""
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or _unsafe_char(key):
            super().validate_key(key)

    def _ttl(self, timeout: float | None) -> float | None:
        """Return Django's `timeout` as a TTL: seconds, 0 or less for "do not store", or `None`."""
        return timeouts.ttl_of(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)

    def _fill(
        self, key: Any, version: int | None, timeout: float | None, stale: float, jitter: float
    ) -> Fill:
        final = self.make_and_validate_key(key, version=version)
        return Fill(final, self._ttl(timeout), stale, jitter)

    # -- one key -----------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or `default`. A cached `None` is returned as `None`."""
        key = self.make_and_validate_key(key, version=version)
        payload = self._store.get(key)
        if payload is None:
            self._count(MISSES)
            return default
        value = self._decode(key, payload, self._missing_key)
        if value is self._missing_key:
            self._count(MISSES)
            return default
        self._count(HITS)
        return value

    def set(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """Store the value for `timeout` seconds. `None`: without a deadline. 0 or less: delete.

        `stale` and `jitter` have the same effect on the deadline as in `get_or_set`. With `nx`, only
        a missing key is written, with `xx` only one that exists, and True is returned if it was.
        """
        final, payload, ttl = self._entry(key, value, timeout, version, stale, jitter)
        if nx or xx:
            stored = extended_api.set_if(self._store, final, payload, ttl, nx=nx, xx=xx)
            self._count(SETS, stored)
            return stored
        if ttl is not None and ttl <= 0:
            self._store.delete(final)
        else:
            self._store.set(final, payload, ttl)
            self._count(SETS)
        return None  # as Django's backends do

    def _entry(
        self,
        key: Any,
        value: Any,
        timeout: float | None,
        version: int | None,
        stale: float,
        jitter: float,
    ) -> tuple[str, Payload, float | None]:
        """Return what `set` stores: the final key, the payload, the TTL."""
        final = self.make_and_validate_key(key, version=version)
        ttl = self._ttl(timeout)
        stored = ttl is None or ttl > 0
        payload = self._codec.encode(final, value, self._store.check_size if stored else None)
        if stale or jitter:
            fill = Fill(final, ttl, stale, jitter)
            if stored and ttl is not None:
                ttl, payload = fill.with_deadline(payload)
        return final, payload, ttl

    def add(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Store the value if the key is missing; return True if this call stored it.

        With a timeout of 0 or less nothing is stored, and the result is True if the key is missing.
        """
        key = self.make_and_validate_key(key, version=version)
        payload = self._codec.encode(key, value)
        ttl = self._ttl(timeout)
        if ttl is not None and ttl <= 0:
            return not self._store.has(key)
        added = self._store.add(key, payload, ttl)
        self._count(SETS, added)
        return added

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Return True if the key exists and has not expired."""
        return self._store.has(self.make_and_validate_key(key, version=version))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove the key; return True if it existed."""
        deleted = self._store.delete(self.make_and_validate_key(key, version=version))
        self._count(DELETES, deleted)
        return deleted

    def touch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Set a new timeout; return True if the key existed. 0 or less removes the key."""
        key = self.make_and_validate_key(key, version=version)
        ttl = self._ttl(timeout)
        if ttl is not None and ttl <= 0:
            return self._store.delete(key)
        return self._store.touch(key, ttl)

    # -- one computation for all callers -----------------------------------------------------

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> Any:
        """Return the value; if the key is missing, call `default` once for all concurrent callers.

        `stale`: seconds past the deadline during which this method (no other) may return the old
        value, while exactly one caller refreshes it or if `default` raises. `jitter`: a fraction of
        the timeout, 0 to 1; the timeout is shortened by a random part of it, so that entries stored
        together do not expire together. An exception of `default` reaches the caller that ran it.
        """
        fill = self._fill(key, version, timeout, stale, jitter)
        value = self._value_of(fill.key, self._store.get(fill.key))
        if value is not self._missing_key:
            self._count(HITS)
            return value
        return self._single_flight.get(fill, default if callable(default) else lambda: default)

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> Any:
        """Async twin of `get_or_set`; the result of `default` is awaited if it is awaitable."""
        fill = self._fill(key, version, timeout, stale, jitter)
        value = self._value_of(fill.key, await self._run_read(self._store.get, fill.key))
        if value is not self._missing_key:
            self._count(HITS)
            return value
        factory = default if callable(default) else lambda: default
        return await self._single_flight.aget(fill, factory)

    def _value_of(self, key: str, payload: Payload | None) -> Any:
        """Return the visible value, or `_missing_key`."""
        return (
            self._missing_key if payload is None else self._decode(key, payload, self._missing_key)
        )

    # -- numbers and versions ----------------------------------------------------------------

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` (an int or a float) to a number; return the sum. The deadline is kept.

        Raises `ValueError` if the key is missing, `TypeError` if its value is not a number.
        """
        final = self.make_and_validate_key(key, version=version)
        found = None
        if type(delta) is int:
            try:
                total = self._store.incr(final, delta)
            except NotCountable as exc:
                found = exc.found
            else:
                if total is None:
                    raise ValueError(f"Key {key!r} not found")
                return total
        total = self._changes.add(key, final, delta, found)
        if total is None:
            raise ValueError(f"Key {key!r} not found")
        return total

    def decr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Subtract `delta`; see `incr`."""
        return self.incr(key, -delta, version=version)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move the value to `version + delta`, with its deadline; return the new version.

        Raises `ValueError` if the key is missing.
        """
        if version is None:
            version = self.version
        source = self.make_and_validate_key(key, version=version)
        target = self.make_and_validate_key(key, version=version + delta)
        if not self._changes.move(source, target):
            raise ValueError(f"Key {key!r} not found")
        return version + delta

    # -- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return a dict of the keys that exist."""
        finals = {key: self.make_and_validate_key(key, version=version) for key in keys}
        found = {}
        # Without duplicates: 1 and "1" are two keys to the caller, and one to the store.
        payloads = self._store.get_many(list(dict.fromkeys(finals.values()))) if finals else {}
        for key, final in finals.items():
            value = self._value_of(final, payloads.get(final))
            if value is not self._missing_key:
                found[key] = value
        self._count(HITS, len(found))
        self._count(MISSES, len(finals) - len(found))
        return found

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Store all values; return the keys that could not be stored."""
        finals = {self.make_and_validate_key(key, version=version): key for key in data}
        payloads = {final: self._codec.encode(final, data[key]) for final, key in finals.items()}
        ttl = self._ttl(timeout)
        if not payloads:
            return []
        if ttl is not None and ttl <= 0:
            self._store.delete_many(list(finals))
            return []
        failed = [finals[final] for final in self._store.set_many(payloads, ttl)]
        self._count(SETS, len(payloads) - len(failed))
        return failed

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Remove the keys."""
        finals = [self.make_and_validate_key(key, version=version) for key in keys]
        if finals:
            self._count(DELETES, self._store.delete_many(finals))

    # -- django-redis's API ------------------------------------------------------------------

    def ttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the seconds left, rounded up; `None` without a deadline, 0 if the key is missing."""
        final = self.make_and_validate_key(key, version=version)
        return timeouts.whole_seconds(self._store.ttl(final))

    def pttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the milliseconds left; `None` without a deadline, 0 if the key is missing."""
        final = self.make_and_validate_key(key, version=version)
        return timeouts.whole_milliseconds(self._store.ttl(final))

    def expire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool:
        """Set a timeout, a `timedelta` or seconds; return True if the key existed."""
        return self.touch(key, timeouts.seconds_of(timeout), version=version)

    def pexpire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool:
        """Set a timeout, a `timedelta` or milliseconds; return True if the key existed."""
        return self.touch(key, timeouts.seconds_of(timeout, per_s=1000), version=version)

    def expire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool:
        """Set a deadline, a `datetime` or seconds since 1970; return True if the key existed."""
        deadline_s = when.timestamp() if isinstance(when, datetime) else when
        return self.touch(key, deadline_s - clock.wall_s(), version=version)

    def pexpire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool:
        """Set a deadline, a `datetime` or milliseconds since 1970."""
        deadline = when if isinstance(when, datetime) else when / 1000
        return self.expire_at(key, deadline, version=version)

    def persist(self, key: Any, version: int | None = None) -> bool:
        """Remove the deadline; return True if the key existed and had one."""
        return self._store.persist(self.make_and_validate_key(key, version=version))

    def iter_keys(
        self, search: str, itersize: int | None = None, *, version: int | None = None
    ) -> Iterator[str]:
        r"""Yield the keys of one version that match a glob: `*`, `?`, `[a-z]`, `[^a]`, `\`."""
        prefix = extended_api.version_prefix(self, self.key_end, "iter_keys", version)
        end = -len(self.key_end or "") or None
        for final in self._store.scan(prefix, search, itersize or extended_api.ITERSIZE):
            yield final[len(prefix) : end]

    def keys(self, search: str, version: int | None = None) -> list[str]:
        """Return the keys of one version that match a glob."""
        return list(self.iter_keys(search, version=version))

    def delete_pattern(
        self, pattern: str, version: int | None = None, *, itersize: int | None = None
    ) -> int:
        """Remove the keys of one version that match a glob; return how many. Not atomic."""
        prefix = extended_api.version_prefix(self, self.key_end, "delete_pattern", version)
        return self._store.remove(prefix, pattern, itersize or extended_api.ITERSIZE)

    # -- the alias ---------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove this alias's own keys, of all versions; never another application's.

        Not atomic: an entry written during the call may remain or be removed.
        """
        self._store.clear(self.key_prefix)

    def lock(
        self,
        key: str,
        version: int | None = None,
        timeout: float | None = None,
        sleep: float | None = None,
        *,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        thread_local: bool = False,
    ) -> Lock:
        """Return a lock of this name and version, for use with `with` or `async with`."""
        options = LockOptions(timeout, sleep, blocking, blocking_timeout, thread_local)
        final = self.make_key(key, version=version)
        lock = Lock(self._store, final, options, self.options["lease_time"])
        lock.alias, lock.backend_name = self.alias or UNNAMED, self.backend_name
        lock.operation_keys = (key,)
        watch(type(lock), LOCK_METHODS)
        return lock

    def ping(self) -> None:
        """Read from the store; raise its error, whatever `OPTIONS["on_error"]` says."""
        self._store.has(self.make_key("cacheapp.ping"))

    # -- what operations report --------------------------------------------------------------

    @property
    def backend_name(self) -> str:
        """The name of this class, for those who watch operations."""
        return type(self).__name__

    def stored_bytes(self, values: Iterable[Any]) -> int:
        """Return the size of the values as this cache stores them; an integer has eight bytes."""
        payloads = (self._codec.encode("", value) for value in values)
        return sum(8 if isinstance(payload, int) else len(payload) for payload in payloads)

    if not TYPE_CHECKING:  # for a type checker, every attribute would exist

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(extended_api.missing_method(type(self).__name__, name))

    def stats(self) -> dict[str, int]:
        """Return this alias's counters, summed over all processes on this machine."""
        return self._named(self._counters.totals())

    def own_stats(self) -> dict[str, int]:
        """Return this process's counters for this alias."""
        return self._named(self._counters.own())

    def _named(self, counts: Mapping[str, int]) -> dict[str, int]:
        return {name: counts[name] for name in self.COUNTERS}

    def close(self, **kwargs: Any) -> None:  # noqa: ARG002 (Django passes what its signal has)
        """Notify the store that a request ended. Django calls this after each one; nothing is closed."""
        self._store.end_request()
