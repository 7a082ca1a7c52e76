"""Rate limits that count exactly across all workers: `limit()`. For views, see `throttle`.

Invariant: the costs of the attempts that a window allows add up to at most `rate`. The store's
`incr`, one atomic step for all workers, maintains it: an attempt with a sum above `rate` is
refused. Windows are fixed intervals of the wall clock, [n * per, (n + 1) * per), each with its own
counter.

Known weakness: `rate` attempts at the end of one window and `rate` at the beginning of the next are
twice the rate within a short time. If that matters, add a limit with a smaller rate over a shorter
time. The invariant requires that the store keeps the counter (no eviction, no `clear`: if either is
possible, give limits their own alias) and that machines agree about the time: near a boundary, a
machine with a wrong clock counts in another window.
"""

import dataclasses
import logging
import math

from cacheapp import clock
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.by_alias import shared_cache
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.canonical import key_part
from cacheapp.errors import CacheappError, StoreUnavailable

logger = logging.getLogger(__name__)

_KEPT_S = 60.0  # a counter outlives its window by this: clocks may differ, threads may pause
_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class Limit:
    """The result of an attempt."""

    allowed: bool
    used: int
    """Cost counted in this window, including this attempt if it was allowed."""

    remaining: int
    retry_after_s: float
    """0 if the attempt was allowed; otherwise the time until the next window."""

    reset_s: float
    """Time until the next window."""


def limit(name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1) -> Limit:
    """Count an attempt, unless more than `rate` would be counted within `per` seconds.

    Calls with equal `name` and `per` share a counter. A refused attempt costs nothing: a client
    that keeps trying is allowed again when the next window begins. With costs above 1, an attempt
    that is being refused may, for a moment, cause a cheaper one to be refused.

    Raises the store's errors: `StoreUnavailable` (not counted), `OutcomeUnknown` (perhaps counted).
    """
    check_rate(rate, per, cost)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name is {name!r}; expected a non-empty str")
    cache = shared_cache(alias, "limit()")
    part = key_part(name.encode("utf-8", "surrogatepass"))
    for _ in range(_ATTEMPTS):
        now_s = clock.wall_s()
        window = math.floor(now_s / per)
        reset_s = max((window + 1) * per - now_s, 0.0)
        key = f"limit:{part}:{float(per)!r}:{window}"
        if (counted := _count(cache, key, rate, cost, reset_s + _KEPT_S)) is not None:
            allowed, used = counted
            return Limit(allowed, used, rate - used, 0.0 if allowed else reset_s, reset_s)
    raise StoreUnavailable(
        f"the counter of limit {name!r} was removed {_ATTEMPTS} times between add and incr: "
        f"CACHES[{alias!r}] evicts new entries, or is cleared repeatedly; nothing was counted"
    )


async def alimit(
    name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1
) -> Limit:
    """Async twin of `limit`."""
    return await in_thread(limit, name, rate, per, alias=alias, cost=cost)


def check_rate(rate: int, per: float, cost: int) -> None:
    """Raise `ValueError` if one of the arguments is not valid."""
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise ValueError(f"rate is {rate!r}; expected a whole number of at least 1")
    number = isinstance(per, int | float) and not isinstance(per, bool)
    if not number or not 0 < per < math.inf:
        raise ValueError(f"per is {per!r}; expected a number of seconds above 0")
    if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= rate:
        raise ValueError(f"cost is {cost!r}; expected a whole number from 1 to the rate, {rate}")


def _count(
    cache: SharedCache, key: str, rate: int, cost: int, ttl_s: float
) -> tuple[bool, int] | None:
    """Return whether the attempt is allowed, and the count; `None` if the counter was removed."""
    found = cache.get(key)
    if found is None:
        cache.add(key, 0, ttl_s)
        found = 0
    if found + cost > rate:  # most refused attempts cost the store only a read
        return False, min(found, rate)
    try:
        total = cache.incr(key, cost)
    except ValueError as exc:
        if is_interruption(exc):
            raise
        return None
    if total <= rate:
        return True, total
    # Another attempt was counted after the read. If the process dies here, this cost remains
    # counted: too few attempts are allowed then, never too many.
    try:
        cache.decr(key, cost)
    except (ValueError, CacheappError) as exc:
        if is_interruption(exc):
            raise
        logger.debug("the cost of a refused attempt remains counted: %s", exc)
    return False, min(total - cost, rate)
