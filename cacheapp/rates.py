"""Rate limits that count exactly over all workers: `limit()`; for views, see `throttle`.

Invariant: of the attempts that a window admits, the costs add up to at most `rate`. The store's
`incr` holds it, one atomic step for all workers: whoever's sum is above `rate` is refused. Windows
are fixed, [n * per, (n + 1) * per) of the wall clock, each with a counter of its own.

Their known weakness: `rate` attempts at the end of one window and `rate` at the beginning of the
next are twice the rate within a moment. Where that matters, ask for a smaller rate over a shorter
time as well. What the promise rests on: the store keeps the counter (no eviction, no `clear`: give
limits an alias of their own where either may happen) and hosts agree about the time; one that is
late or early counts in another window near a boundary.
"""

import dataclasses
import logging
import math

from cacheapp import clock
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.by_alias import shared_cache
from cacheapp.backends.core.shared import SharedCache
from cacheapp.canonical import key_part
from cacheapp.errors import CacheappError, StoreUnavailable

logger = logging.getLogger(__name__)

_KEPT_S = 60.0  # a counter outlives its window by this: hosts' clocks may differ, threads may pause
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Limit:
    """What became of an attempt."""

    allowed: bool
    used: int
    """Cost counted in this window, with this attempt if it was allowed."""

    remaining: int
    retry_after_s: float
    """0 if it was allowed; else the time until the next window."""

    reset_s: float
    """Time until the next window."""


def limit(name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1) -> Limit:
    """Count an attempt, unless more than `rate` would be counted within `per` seconds.

    All who give the same `name` and `per` share a counter. A refused attempt costs nothing: whoever
    goes on trying is admitted as soon as the next window begins. With costs above 1, one that is
    being refused may, for an instant, keep out a cheaper one that had fitted.

    Raises what the store raises: `StoreUnavailable` (not counted), `OutcomeUnknown` (perhaps
    counted).
    """
    check_rate(rate, per, cost)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name is {name!r}; expected a str that is not empty")
    cache = shared_cache(alias, "limit()")
    shown = key_part(name.encode("utf-8", "surrogatepass"))
    for _ in range(_TRIES):
        now_s = clock.wall_s()
        window = math.floor(now_s / per)
        reset_s = max((window + 1) * per - now_s, 0.0)
        key = f"limit:{shown}:{float(per)!r}:{window}"
        if (counted := _count(cache, key, rate, cost, reset_s + _KEPT_S)) is not None:
            allowed, used = counted
            return Limit(allowed, used, rate - used, 0.0 if allowed else reset_s, reset_s)
    raise StoreUnavailable(
        f"the counter of limit {name!r} was gone {_TRIES} times between add and incr: "
        f"CACHES[{alias!r}] evicts what was just written, or somebody keeps clearing it"
    )


async def alimit(
    name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1
) -> Limit:
    """Do what `limit` does."""
    return await in_thread(limit, name, rate, per, alias=alias, cost=cost)


def check_rate(rate: int, per: float, cost: int) -> None:
    """Raise `ValueError` for what no limit can be."""
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
    """Return whether the attempt is allowed and what is counted; `None` if the counter went away."""
    found = cache.get(key)
    if found is None:
        cache.add(key, 0, ttl_s)
        found = 0
    if found + cost > rate:  # a read is all that a refused attempt costs the store, nearly always
        return False, min(found, rate)
    try:
        total = cache.incr(key, cost)
    except ValueError:
        return None
    if total <= rate:
        return True, total
    # Somebody was faster since the read. Whoever dies here leaves its cost counted: too few are
    # admitted then, never too many.
    try:
        cache.decr(key, cost)
    except (ValueError, CacheappError) as exc:
        logger.debug("the cost of a refused attempt stays counted: %s", exc)
    return False, min(total - cost, rate)
