"""The only module that reads a clock, so that tests can replace it."""

import functools
import os
import time
from collections.abc import Callable

_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_s() -> float:
    """Return seconds since 1970, for deadlines that outlive a process, people and HTTP."""
    return time.time()


def monotonic_s() -> float:
    """Return seconds of `CLOCK_MONOTONIC`: for durations; it never steps."""
    return time.monotonic()


boot_s: Callable[[], float] = functools.partial(time.clock_gettime, _BOOT)
"""Return seconds since this machine booted, sleep included: for deadlines that end with it.

No process can step this clock. (On macOS, `CLOCK_MONOTONIC` counts what `CLOCK_BOOTTIME` does.) Every
call of a cache asks it: without a frame of Python around it, it takes two thirds.
"""


def monotonic_ns() -> int:
    """Return nanoseconds of `CLOCK_MONOTONIC`: for histories; one clock for all processes."""
    return time.monotonic_ns()


def uptime_s() -> float:
    """Return for how long this process has had cacheapp loaded; a fork begins anew."""
    return monotonic_s() - _life.began_s


class _Life:
    """When this process began: written as the module loads, and in a child before its first line."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.began_s = monotonic_s()


_life = _Life()
