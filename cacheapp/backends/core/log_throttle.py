"""Keeps a log readable while something goes wrong a thousand times a second."""

import os
import threading
from collections.abc import Callable

from cacheapp import clock


class LogThrottle:
    """Says when a line may be logged: at most one per `every_s` seconds and process.

    `_lock` guards `_next_at_s` and `_withheld`; a forked child gets one that nobody holds. Made
    once per module, not per object: what is registered for forks is never forgotten.
    """

    def __init__(
        self, every_s: float = 60.0, now_s: Callable[[], float] = clock.monotonic_s
    ) -> None:
        self._every_s = every_s
        self._now_s = now_s
        self._lock = threading.RLock()  # a signal handler may log while its thread is in `due`
        self._next_at_s = float("-inf")
        self._withheld = 0
        os.register_at_fork(after_in_child=self._renew_lock)

    def due(self) -> int | None:
        """Return how many lines were withheld since the last one, or `None` to withhold this one."""
        with self._lock:
            now_s = self._now_s()
            if now_s < self._next_at_s:
                self._withheld += 1
                return None
            self._next_at_s = now_s + self._every_s
            withheld, self._withheld = self._withheld, 0
            return withheld

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()
