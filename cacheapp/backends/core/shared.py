"""What all shared backends have in common: Django's whole cache API over a `Store`."""

import abc
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from django.conf import settings
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    memcached_error_chars_re,
)

from cacheapp import clock, conf
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.alias import alias_of
from cacheapp.backends.core.codec import Codec, Rejected
from cacheapp.backends.core.counters import (
    DELETES,
    HITS,
    MISSES,
    SETS,
    VALUES_REJECTED,
    counters,
)
from cacheapp.backends.core.counting import Counting
from cacheapp.backends.core.extended import ExtendedCache
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.locks import Lock
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.many_keys import ManyKeys
from cacheapp.backends.core.misconfigured import Misconfigured
from cacheapp.backends.core.options import Option, read_options, read_params
from cacheapp.backends.core.single_flight import SingleFlight
from cacheapp.backends.core.store import Store

logger = logging.getLogger(__name__)

FOR_EVER_S = 1e11  # three thousand years: what is longer has no deadline, so that none overflows
_unsafe_char = memcached_error_chars_re.search


class SharedCache(Counting, ManyKeys, SingleFlight, ExtendedCache, abc.ABC):
    """A cache that all threads and processes share; see docs/guarantees.md for what that promises.

    Django builds one object per alias and thread, and calls `close()` after each request. These
    objects hold no connection: what is expensive stands in a `Store` that the process shares.
    """

    OPTIONS: ClassVar[Mapping[str, Option]]
    """The options that this backend knows."""

    rejections = LogThrottle()
    """Who can write to the store could otherwise fill the disk with our log."""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        mistakes = self.mistakes(location, params)
        mistakes += conf.read(getattr(settings, "CACHEAPP", {}))[1]
        super().__init__({**params, "OPTIONS": {}})
        if not mistakes:
            self.default_timeout = params.get("TIMEOUT", 300)  # BaseCache cuts fractions off
        self.location = location
        self.params = params
        self.options, _ = read_options(params.get("OPTIONS", {}), self.OPTIONS)
        self._codec = Codec(
            self.options["serializer"],
            self.options["compress_min_bytes"],
            signed=self.options["signed"],
        )
        self.alias = alias_of(type(self), location, params)
        name = "unnamed" if self.alias is None else quote(self.alias, safe="")
        if mistakes:
            # Not raised here: Django's own checks build every cache, and ours report all mistakes.
            refusal: Any = Misconfigured(f"CACHES[{self.alias!r}]: " + "; ".join(mistakes))
            self._counters = self._count = self._store = refusal
            return
        self._counters = counters(conf.state_dir() / f"counters-{name}")
        self._count = self._counters.add
        self._store = self._shared_store()

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`; touch no store."""
        del location  # what it may be is the backends' business
        return read_params(params) + read_options(params.get("OPTIONS", {}), cls.OPTIONS)[1]

    @abc.abstractmethod
    def _shared_store(self) -> Store:
        """Return this process's store for these options; connect to nothing yet."""

    # -- keys, deadlines, values -------------------------------------------------------------

    def validate_key(self, key: Any) -> None:
        """Warn about keys that memcached would refuse, as Django documents."""
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or _unsafe_char(key):
            super().validate_key(key)

    def _ttl(self, timeout: float | None) -> float | None:
        """Return Django's `timeout` as a TTL: seconds, 0 or below for "do not keep", or `None`."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout is {timeout!r}; expected None or a number of seconds")
        if timeout != timeout:  # noqa: PLR0124 (isnan refuses large integers)
            raise ValueError("timeout is nan; expected None or a number of seconds")
        return None if timeout > FOR_EVER_S else timeout

    def _decode(self, key: str, payload: Payload, default: Any) -> Any:
        """Return the value, or `default` for what nobody may see, or is not ours and is removed."""
        try:
            return self._codec.decode(key, payload)
        except Rejected as exc:
            shown = lease_format.visible(payload, clock.wall_s())
            if shown is None:
                return default
            if shown is not payload:  # it stands behind a soft deadline
                with contextlib.suppress(Rejected):
                    return self._codec.decode(key, shown)
            self._count(VALUES_REJECTED)
            if (
                self._store.discard(key, payload)
                and (withheld := self.rejections.due()) is not None
            ):
                logger.warning(
                    "%s: removed a value that this cache did not write (%s; %d more since the last "
                    "such line)",
                    type(self).__name__,
                    exc,
                    withheld,
                    extra={"event": "cache_value_rejected"},
                )
            return default

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
    ) -> None:
        """Store the value for `timeout` seconds; `None` for ever; 0 or less removes the key.

        `stale`, `jitter`: store it as `get_or_set` would have with these.
        """
        final, payload, ttl = self._entry(key, value, timeout, version, stale, jitter)
        if ttl is not None and ttl <= 0:
            self._store.delete(final)
        else:
            self._store.set(final, payload, ttl)
            self._count(SETS)

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
        payload = self._codec.encode(final, value)
        ttl = self._ttl(timeout)
        if stale or jitter:
            fill = self._asked_for(key, version, timeout, stale, jitter)
            if ttl is not None and ttl > 0:
                ttl, payload = self._until(fill, payload)
        return final, payload, ttl

    def add(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        """Store the value if the key is absent; return whether this call did.

        With a timeout of 0 or less nothing is kept; the answer is still whether it was absent.
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
        """Return whether the key is there and has not expired."""
        return self._store.has(self.make_and_validate_key(key, version=version))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove the key; return whether it was there."""
        deleted = self._store.delete(self.make_and_validate_key(key, version=version))
        self._count(DELETES, deleted)
        return deleted

    def touch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Give the key a new timeout; return whether it was there. 0 or less removes it."""
        key = self.make_and_validate_key(key, version=version)
        ttl = self._ttl(timeout)
        if ttl is not None and ttl <= 0:
            return self._store.delete(key)
        return self._store.touch(key, ttl)

    # -- the alias ---------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove this alias's own keys, of all versions; never another application's.

        Not one instant: an entry written meanwhile may stay or go.
        """
        self._store.clear(self.key_prefix)

    def lock(
        self,
        name: str,
        timeout: float | None = None,
        blocking_timeout: float | None = None,
        *,
        version: int | None = None,
    ) -> Lock:
        """Return a lock of this name and version, to be used with `with` or `async with`."""
        for what, seconds in (("timeout", timeout), ("blocking_timeout", blocking_timeout)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{what} is {seconds!r}; expected None or seconds above 0")
        final = self.make_key(name, version=version)
        return Lock(self._store, final, timeout, blocking_timeout, self.options["lease_time"])

    def stats(self) -> dict[str, int]:
        """Return what was counted for this alias, summed over all processes of this host."""
        totals: dict[str, int] = self._counters.totals()
        return totals

    def own_stats(self) -> dict[str, int]:
        """Return what this process counted for this alias."""
        own: dict[str, int] = self._counters.own()
        return own

    def close(self, **kwargs: Any) -> None:  # noqa: ARG002 (Django passes what its signal has)
        """Tell the store, and keep it: Django calls this after each request."""
        self._store.end_request()
