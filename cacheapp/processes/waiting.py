"""Waiting for a condition, with a deadline: the one place that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

from cacheapp import clock

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, within_s: float = 10.0) -> T:
    """Return the condition's first true value; raise `TimeoutError` naming `what` when it is late."""
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
    """Wait for a time that somebody asked for; for a condition use `until`."""
    time.sleep(seconds)
