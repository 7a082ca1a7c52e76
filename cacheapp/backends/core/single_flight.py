"""`get_or_set`: one computation per key over all threads and processes, and stale values.

Invariant: at most one live lease per key; whoever computes in order to store holds it, and `fill`
stores only over the very lease (or the very stale entry) that the computation began with. The
store's `lease` and `fill`, one atomic step each, hold it. Since a lease stands inside its key,
every write, delete and clear voids it, and a value older than such a write is never stored.

Nobody waits while holding a lease: a nested call computes for itself, so no order of nesting can
deadlock. Nobody waits longer than the option `lease_wait`: then it takes the lease over from a
holder that hangs, or computes for itself. (Leases: Nishtala et al., "Scaling Memcache at
Facebook", NSDI 2013.)

What is to be done stands once, in generators that touch nothing themselves: they yield steps, and
one of two drivers (see `drivers`), sync or async, takes them.
"""

import dataclasses
import logging
import random
from collections.abc import Callable
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.codec import Codec, Rejected
from cacheapp.backends.core.counters import (
    FACTORY_ERRORS,
    FACTORY_RUNS,
    FACTORY_US,
    HITS,
    LEASE_WAITS,
    MISSES,
    SETS,
    STALE_HITS,
    VOIDED_FILLS,
)
from cacheapp.backends.core.drivers import Ask, Compute, Drivers, Refresh, Steps, Wait, holding
from cacheapp.backends.core.lease_format import Payload
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Fill:
    """What a caller of `get_or_set` asked for."""

    key: str
    ttl: float | None
    stale_s: float
    jitter: float


class SingleFlight(Drivers):
    """Mix-in: `get_or_set` and `aget_or_set`."""

    _codec: Codec
    _count: Callable[..., None]
    _ttl: Callable[[float | None], float | None]

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
        """Return the value; where the key is missing, call `default` once for all who ask.

        `stale`: seconds past the deadline during which the old value may be returned (by this
        method alone) while exactly one caller refreshes it, or if `default` raises. `jitter`: the
        part of the timeout, 0 to 1, by which it is shortened at random, so that what was stored
        together does not expire together. What `default` raises goes to its own caller.
        """
        fill = self._asked_for(key, version, timeout, stale, jitter)
        value = self._seen(fill.key, self._store.get(fill.key))
        if value is not self._missing_key:
            self._count(HITS)
            return value
        factory = default if callable(default) else lambda: default
        return self._drive(self._miss(fill), factory)

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
        """Do what `get_or_set` does; what `default` returns is awaited if it can be."""
        fill = self._asked_for(key, version, timeout, stale, jitter)
        value = self._seen(fill.key, await self._run_read(self._store.get, fill.key))
        if value is not self._missing_key:
            self._count(HITS)
            return value
        factory = default if callable(default) else lambda: default
        return await self._adrive(self._miss(fill), factory)

    def _asked_for(
        self, key: Any, version: int | None, timeout: float | None, stale: float, jitter: float
    ) -> _Fill:
        if not stale >= 0:
            raise ValueError(f"stale is {stale!r}; expected a number of seconds, 0 or more")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter is {jitter!r}; expected a part of the timeout, 0 to 1")
        final = self.make_and_validate_key(key, version=version)
        return _Fill(final, self._ttl(timeout), stale, jitter)

    def _seen(self, key: str, payload: Payload | None) -> Any:
        """Return the value that everybody may see, or `_missing_key`."""
        if payload is None:
            return self._missing_key
        return self._decode(key, payload, self._missing_key)  # type: ignore[attr-defined]

    # -- what is to be done ------------------------------------------------------------------

    def _miss(self, fill: _Fill) -> Steps:
        """Get the value from whoever computes it, or the right to compute it, or a stale one."""
        self._count(MISSES)
        lease = self._store.new_lease()
        give_up_at = None
        while True:
            found = yield Ask(self._store.lease, (fill.key, lease, self.options["lease_time"]))
            if found is None:
                return (yield from self._hold(fill, fill.key, lease, lease))
            value = self._seen(fill.key, found)
            if value is not self._missing_key:
                return value
            place, held = fill.key, found
            if lease_format.has_soft_deadline(found):
                place = fill.key + lease_format.REFRESH_SUFFIX
                held, value = yield from self._past_deadline(fill, place, lease, found)
                if value is not self._missing_key:
                    return value
            if not lease_format.is_lease(held):
                continue  # it was not ours and is removed
            if holding.get():
                return (yield Compute())  # whoever holds a lease never waits for another one
            if give_up_at is None:
                give_up_at = clock.monotonic_s() + self.options["lease_wait"]
                self._count(LEASE_WAITS)
            left_s = give_up_at - clock.monotonic_s()
            if left_s <= 0:
                return (yield from self._take_over(fill, place, held, lease, found))
            yield Wait(place, held, left_s)

    def _take_over(
        self, fill: _Fill, place: str, held: Payload, lease: bytes, found: Payload
    ) -> Steps:
        """Stop waiting for a holder that hangs: compute, and store if it was taken from it."""
        taken = yield Ask(self._store.fill, (place, held, lease, self.options["lease_time"]))
        if not taken:
            return (yield Compute())
        return (yield from self._hold(fill, place, lease, lease if place == fill.key else found))

    def _past_deadline(self, fill: _Fill, place: str, lease: bytes, found: Payload) -> Steps:
        """Return a lease that bars the way and `_missing_key`, or anything and the value.

        The lease of who refreshes the entry stands beside it, at `place`: it must not replace it.
        """
        held = yield Ask(self._store.lease, (place, lease, self.options["lease_time"]))
        old = self._stale(fill.key, found) if fill.stale_s else self._missing_key
        if held is not None:
            return held, old
        refreshing = self._hold(fill, place, lease, found)
        if old is self._missing_key:
            return None, (yield from refreshing)
        return None, (yield from self._refreshed_or(old, refreshing, place, lease))

    def _refreshed_or(self, old: Any, refreshing: Steps, place: str, lease: bytes) -> Steps:
        """Refresh, now or in the background; return the old value unless there is a new one."""
        if self.options["refresh"] == "thread":
            if not (yield Refresh(refreshing)):
                yield from self._give_back(place, lease)
            return old
        try:
            return (yield from refreshing)
        except Exception:
            logger.exception(
                "refreshing an entry failed: its old value is used on",
                extra={"event": "cache_refresh_failed"},
            )
            return old

    def _stale(self, key: str, payload: Payload) -> Any:
        """Return the value of an entry past its soft deadline, and count it."""
        assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
        try:
            value = self._codec.decode(key, lease_format.unwrap(payload)[0])
        except (Rejected, ValueError):
            return self._missing_key
        self._count(STALE_HITS)
        return value

    def _hold(self, fill: _Fill, place: str, lease: bytes, expected: Payload) -> Steps:
        """Compute while holding the lease at `place`; store if `expected` still stands at the key.

        Whatever fails, the lease is given back: the others shall not wait until its time is over.
        """
        try:
            value, payload = yield from self._computed(fill, place, lease)
            if fill.ttl is None or fill.ttl > 0:
                ttl, payload = self._until(fill, payload)
                stored = yield Ask(self._store.fill, (fill.key, expected, payload, ttl))
                self._count(SETS if stored else VOIDED_FILLS)
        except BaseException:
            yield from self._give_back(place, lease)
            raise
        if place != fill.key or (fill.ttl is not None and fill.ttl <= 0):
            yield from self._give_back(place, lease)
        return value

    def _computed(self, fill: _Fill, place: str, lease: bytes) -> Steps:
        """Return what the factory made of it, as a value and as a payload, and count."""
        began = clock.monotonic_s()
        self._count(FACTORY_RUNS)
        try:
            value = yield Compute(place, lease)
            return value, self._codec.encode(fill.key, value)
        except BaseException:
            self._count(FACTORY_ERRORS)
            raise
        finally:
            self._count(FACTORY_US, int((clock.monotonic_s() - began) * 1e6))

    def _give_back(self, place: str, lease: bytes) -> Steps:
        """Let the next waiter try; where that fails, the lease's time ends soon."""
        try:
            yield Ask(self._store.discard, (place, lease))
        except CacheappError as exc:
            logger.debug("a lease was not given back: %s", exc)

    @staticmethod
    def _until(fill: _Fill, payload: Payload) -> tuple[float | None, Payload]:
        """Return the TTL, and the payload with a soft deadline if it may be served past it."""
        if fill.ttl is None:
            return None, payload
        ttl = fill.ttl * (1 - fill.jitter * random.random())  # noqa: S311 (no secret)
        if fill.stale_s:
            return ttl + fill.stale_s, lease_format.add_soft_deadline(payload, clock.wall_s() + ttl)
        return max(ttl, 0.001), payload
