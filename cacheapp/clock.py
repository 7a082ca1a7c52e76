"""The only module that reads a clock, so that tests can replace it."""

import time


def wall_s() -> float:
    """Return seconds since 1970, for deadlines that outlive a process, people and HTTP."""
    return time.time()


def monotonic_s() -> float:
    """Return seconds of `CLOCK_MONOTONIC`: for durations; it never steps."""
    return time.monotonic()
