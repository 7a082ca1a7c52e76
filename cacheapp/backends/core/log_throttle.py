"""Limits how often one log line is written, so that the log stays readable during an outage."""

from collections.abc import Callable

from cacheapp import clock
from cacheapp.backends.local import forks
from cacheapp.thread_lock import reentrant_lock


class LogThrottle:
    """Allows one line per `every_s` seconds and process.

    `_lock` guards `_next_at_s` and `_withheld`; a forked child replaces it. Create one per module,
    not per object: a function registered for forks is never released.
    """

    def __init__(
        self, every_s: float = 60.0, now_s: Callable[[], float] = clock.monotonic_s
    ) -> None:
        self._every_s = every_s
        self._now_s = now_s
        # Reentrant: a signal handler that logs inside `due` causes at most one line more.
        self._lock = reentrant_lock()
        self._next_at_s = float("-inf")
        self._withheld = 0
        forks.register(in_child=self._replace_lock)

    def due(self) -> int | None:
        """Return how many lines were withheld since the last one; `None`: withhold this one too."""
        with self._lock:
            now_s = self._now_s()
            if now_s < self._next_at_s:
                self._withheld += 1
                return None
            self._next_at_s = now_s + self._every_s
            withheld, self._withheld = self._withheld, 0
            return withheld

    def _replace_lock(self) -> None:
        self._lock = reentrant_lock()
