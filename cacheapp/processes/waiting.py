"""Wait for a condition, with a deadline. The only module that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

from cacheapp import clock

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Return the first true value of the condition; raise `TimeoutError` with `what` at the deadline."""
    deadline = clock.monotonic_s() + within_s
    pause_s = 0.001
    while True:
        if value := condition():
            return value
        if clock.monotonic_s() > deadline:
            raise TimeoutError(f"timed out after {within_s:g} s waiting for {what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def pause(seconds: float) -> None:
    """Sleep for a fixed time; for a condition use `until`."""
    time.sleep(seconds)
