"""The only module that reads a clock, so that tests can replace it."""

import functools
import os
import time
from collections.abc import Callable

_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_s() -> float:
    """Return seconds since 1970, for HTTP, display, and deadlines that outlive a process."""
    return time.time()


def monotonic_s() -> float:
    """Return seconds of `CLOCK_MONOTONIC`: for durations; it is never adjusted backwards."""
    return time.monotonic()


boot_s: Callable[[], float] = functools.partial(time.clock_gettime, _BOOT)
"""Return seconds since this machine booted, sleep included: for deadlines that end with it.

No process can set this clock. (On macOS, `CLOCK_MONOTONIC` includes sleep too.) Every call of a cache
reads it; as a `partial`, without a Python frame, it takes two thirds of the time.
"""


stopwatch_ns: Callable[[], int] = time.perf_counter_ns
"""Return nanoseconds of the clock with the highest resolution: for the duration of one call of a cache.

A Python frame around it would be a tenth of what measuring a `get` costs.
"""


def monotonic_ns() -> int:
    """Return nanoseconds of `CLOCK_MONOTONIC`: for histories; all processes share this clock."""
    return time.monotonic_ns()


def uptime_s() -> float:
    """Return the seconds since this process loaded cacheapp, or since its fork."""
    return monotonic_s() - _life.began_s


class _Life:
    """The start of this process: set when the module loads, and again in a child after a fork."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.began_s = monotonic_s()


_life = _Life()
