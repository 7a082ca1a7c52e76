"""`get_or_set`: one computation per key across all threads and processes, and stale values.

Invariant: there is at most one live lease per key. A caller that computes a value in order to store
it holds that lease, and `fill` stores only over the lease (or the stale entry) with which the
computation began. The store's `lease` and `fill`, one atomic step each, maintain it. A lease is
stored under its key, so every write, delete and clear voids it: a value older than such a write is
never stored. The lease for the refresh of a stale entry is under a key of its own: its holder looks at the
entry again before it computes, because it may have read the entry before the last refresh ended.

A caller that holds a lease never waits: a nested call computes its value itself, so no order of
nesting can deadlock. No caller waits longer than the option `lease_wait`: then it takes the lease
over from a holder that hangs, or computes the value itself. (Leases: Nishtala et al., "Scaling
Memcache at Facebook", NSDI 2013.)

The protocol is written once, in generators that do no I/O: they yield steps, and `StepRunner` runs
the steps in its sync or async form.
"""

import contextlib
import dataclasses
import functools
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.codec import Codec, Rejected
from cacheapp.backends.core.counters import (
    FACTORY_ERRORS,
    FACTORY_RUNS,
    FACTORY_US,
    LEASE_WAITS,
    MISSES,
    SETS,
    STALE_HITS,
    VOIDED_FILLS,
)
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.operation import note_miss, note_wait
from cacheapp.backends.core.poller import NoThread
from cacheapp.backends.core.step_runner import (
    CallStore,
    Factory,
    RunFactory,
    RunInBackground,
    StepRunner,
    Steps,
    WaitForChange,
    holding_lease,
    holds_lease,
)
from cacheapp.backends.core.store import Store
from cacheapp.backends.local.interruptions import is_interruption, raised_by_handler
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

_MISSING = object()
_MIN_TTL_S = 0.001  # full jitter would leave 0, which means "do not store"


@dataclasses.dataclass(frozen=True)
class Fill:
    """What a caller wants to store at a key, and for how long."""

    key: str
    ttl: float | None
    stale_s: float
    jitter: float

    def __post_init__(self) -> None:
        if not self.stale_s >= 0:
            raise ValueError(f"stale is {self.stale_s!r}; expected a number of seconds, 0 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(
                f"jitter is {self.jitter!r}; expected a fraction of the timeout, 0 to 1"
            )

    @property
    def is_kept(self) -> bool:
        """Whether the timeout allows the value to be stored at all."""
        return self.ttl is None or self.ttl > 0

    def with_deadline(self, payload: Payload) -> tuple[float | None, Payload]:
        """Return the TTL, and the payload, with a soft deadline if it may be served stale."""
        if self.ttl is None:
            return None, payload
        ttl = self.ttl * (1 - self.jitter * random.random())  # noqa: S311 (no secret)
        if self.stale_s:
            soft = lease_format.add_soft_deadline(payload, clock.wall_s() + ttl)
            return ttl + self.stale_s, soft
        return max(ttl, _MIN_TTL_S), payload


class SingleFlight:
    """Gets values that are missing or stale for one cache.

    `decode(key, payload, default)` returns the value of a visible payload, and otherwise the
    default; it removes payloads that no cache of this project wrote. `count` adds to a counter.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        options: Mapping[str, Any],
        count: Callable[..., None],
        decode: Callable[[str, Payload, Any], Any],
    ) -> None:
        self._store = store
        self._codec = codec
        self._lease_s: float = options["lease_time"]
        self._max_wait_s: float = options["lease_wait"]
        self._refreshes_in_background = options["refresh"] == "thread"
        self._count = count
        self._decode = decode
        self._runner = StepRunner(store, self._lease_s)

    def get(self, fill: Fill, factory: Factory) -> Any:
        """Return the value that another caller computes, or a stale one, or the factory's."""
        return self._runner.run(self._miss_or_compute(fill), factory)

    async def aget(self, fill: Fill, factory: Factory) -> Any:
        """Async twin of `get`: awaits the factory's result if it is awaitable."""
        return await self._runner.arun(self._miss_or_compute(fill), factory)

    def _miss_or_compute(self, fill: Fill) -> Steps:
        """Run `_miss`; compute in the caller if the system refuses a thread to watch the key."""
        try:
            return (yield from self._miss(fill))
        except NoThread:
            return (yield RunFactory())

    def _miss(self, fill: Fill) -> Steps:
        """Get the value as `_get_or_compute` does; leave no lease behind if a handler interrupts it."""
        self._count(MISSES)
        note_miss()
        lease = self._store.new_lease()
        try:
            return (yield from self._get_or_compute(fill, lease))
        except GeneratorExit:  # a signal handler interrupted the runner, which takes no more steps
            self._discard(fill.key, lease)
            if fill.stale_s:
                self._discard(fill.key + lease_format.REFRESH_SUFFIX, lease)
            raise
        except BaseException as exc:
            if not isinstance(exc, Exception) or raised_by_handler(exc) is not None:
                with holding_lease():
                    yield from self._release(fill.key, lease)
                    if fill.stale_s:
                        yield from self._release(fill.key + lease_format.REFRESH_SUFFIX, lease)
            raise

    def _get_or_compute(self, fill: Fill, lease: bytes) -> Steps:
        """Get the value from the caller that computes it, or the right to compute it, or a stale one."""
        deadline_s = None
        while True:
            with holding_lease():  # already: a signal handler must not wait for what is stored now
                found = yield CallStore(self._store.lease, (fill.key, lease, self._lease_s))
                if found is None:
                    return (yield from self._compute(fill, fill.key, lease, lease))
            value = self._decode(fill.key, found, _MISSING)
            lease_key, held = fill.key, found
            if value is _MISSING and lease_format.has_soft_deadline(found):
                lease_key = fill.key + lease_format.REFRESH_SUFFIX
                held, value = yield from self._stale_or_refreshed(fill, lease_key, lease, found)
            if value is not _MISSING:
                return value
            if held is None:
                continue  # the entry was replaced
            if not lease_format.is_lease(held):
                # No cache with these options wrote it. If it has not been removed, it is now.
                yield CallStore(self._store.discard, (lease_key, held))
                continue
            if holds_lease():
                return (yield RunFactory())  # a caller that holds a lease never waits for another
            deadline_s = deadline_s or self._begin_to_wait()
            began_s = clock.monotonic_s()
            if began_s < deadline_s:
                yield WaitForChange(lease_key, held, deadline_s - began_s)
                note_wait(clock.monotonic_s() - began_s)
                continue
            value = yield from self._take_over(fill, lease_key, held, lease, found)
            if value is not _MISSING:
                return value

    def _begin_to_wait(self) -> float:
        """Count a caller that waits; return until when."""
        self._count(LEASE_WAITS)
        return clock.monotonic_s() + self._max_wait_s

    def _take_over(
        self, fill: Fill, lease_key: str, held: Payload, lease: bytes, found: Payload
    ) -> Steps:
        """Stop waiting for a holder that hangs: compute, and store only if the lease was replaced.

        Return `_MISSING` if the stale entry was replaced.
        """
        with holding_lease():
            taken = yield CallStore(self._store.fill, (lease_key, held, lease, self._lease_s))
            if taken:
                expected = lease if lease_key == fill.key else found
                return (yield from self._compute(fill, lease_key, lease, expected))
        return (yield RunFactory())

    def _stale_or_refreshed(
        self, fill: Fill, lease_key: str, lease: bytes, found: Payload
    ) -> Steps:
        """Handle an entry past its soft deadline; return `(held, value)`.

        `value` is `_MISSING` if no stale value may be returned, and another caller holds the lease
        `held`; or, with `held` being `None`, if the entry was replaced meanwhile. The lease for a refresh
        is stored at `lease_key`, because it must not replace the entry.
        """
        # Decoded first: if that raises, no lease is held.
        old = self._stale_value(fill.key, found) if fill.stale_s else _MISSING
        with holding_lease():
            held = yield CallStore(self._store.lease, (lease_key, lease, self._lease_s))
            if held is not None:
                return held, old
            refresh = self._compute(fill, lease_key, lease, found)
            if old is _MISSING:
                return None, (yield from refresh)
            return None, (yield from self._refresh(old, refresh, lease_key, lease))

    def _refresh(self, old: Any, refresh: Steps, lease_key: str, lease: bytes) -> Steps:
        """Refresh now or in the background; return the old value unless there is a new one."""
        if self._refreshes_in_background:
            if not (yield RunInBackground(refresh)):
                yield from self._release(lease_key, lease)
            return old
        try:
            return (yield from refresh)
        except Exception as exc:
            if raised_by_handler(exc) is exc:
                raise  # it interrupted the factory, which has not failed
            logger.exception(
                "refreshing a cache entry failed; its old value was kept",
                extra={"event": "cache_refresh_failed"},
            )
            return old

    def _stale_value(self, key: str, payload: Payload) -> Any:
        """Return the value of an entry past its soft deadline, and count it."""
        assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
        try:
            inner = lease_format.unwrap(payload)[0]
        except ValueError as exc:
            if is_interruption(exc):
                raise
            return _MISSING
        try:
            value = self._codec.decode(key, inner)
        except Rejected:
            return _MISSING
        self._count(STALE_HITS)
        return value

    def _compute(self, fill: Fill, lease_key: str, lease: bytes, expected: Payload) -> Steps:
        """Compute under the lease at `lease_key`; store if the key still holds `expected`.

        Return `_MISSING`, with nothing computed, if the stale entry was replaced before this caller
        got the lease to refresh it. On any failure the lease is released, so that waiting callers need
        not wait for its end.
        """
        try:
            value = _MISSING
            if lease_key == fill.key or (yield CallStore(self._store.get, (fill.key,))) == expected:
                value = yield from self._compute_and_fill(fill, lease_key, lease, expected)
        except GeneratorExit:  # a signal handler interrupted the runner, which takes no more steps
            self._discard(lease_key, lease)
            raise
        except BaseException:
            yield from self._release(lease_key, lease)
            raise
        if lease_key != fill.key or not fill.is_kept:
            yield from self._release(lease_key, lease)
        return value

    def _compute_and_fill(
        self, fill: Fill, lease_key: str, lease: bytes, expected: Payload
    ) -> Steps:
        value, payload = yield from self._run_factory(fill, lease_key, lease)
        if fill.is_kept:
            ttl, payload = fill.with_deadline(payload)
            stored = yield CallStore(self._store.fill, (fill.key, expected, payload, ttl))
            self._count(SETS if stored else VOIDED_FILLS)
        return value

    def _run_factory(self, fill: Fill, lease_key: str, lease: bytes) -> Steps:
        """Return the factory's value and its payload; count the run, its time and its errors."""
        began = clock.monotonic_s()
        self._count(FACTORY_RUNS)
        try:
            return (
                yield RunFactory(lease_key, lease, functools.partial(self._codec.encode, fill.key))
            )
        except BaseException:
            self._count(FACTORY_ERRORS)
            raise
        finally:
            self._count(FACTORY_US, int((clock.monotonic_s() - began) * 1e6))

    def _discard(self, lease_key: str, lease: bytes) -> None:
        with contextlib.suppress(CacheappError):  # as in `_release`
            self._store.discard(lease_key, lease)

    def _release(self, lease_key: str, lease: bytes) -> Steps:
        """Let the next waiting caller try. If this fails, the lease ends after `lease_time`."""
        try:
            yield CallStore(self._store.discard, (lease_key, lease))
        except CacheappError as exc:
            logger.debug("could not release a lease, which ends by itself: %s", exc)
