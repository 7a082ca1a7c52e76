"""Renews the leases and locks of this process while they are held."""

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


class Renewer:
    """Renews from one daemon thread, which starts with the first lease or lock and never ends.

    `_wake` (a condition) guards all fields; `_held` maps a number to the function that renews, its
    interval and its next time. A stopped or dead process renews nothing, so its leases end.
    """

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._held: dict[int, tuple[Callable[[], bool], float, float]] = {}
        self._last = 0
        self._running = False
        self._sleeps_until = math.inf

    @contextlib.contextmanager
    def renewing(self, renew: Callable[[], bool], time_s: float) -> Iterator[None]:
        """Call `renew` every `time_s / 3` seconds until the block ends or `renew` returns False.

        Without a thread, the block runs all the same, and `renew` is called once there is one.
        """
        with self._wake:
            self._last += 1
            number = self._last
        try:
            with self._wake:
                due = clock.monotonic_s() + time_s / 3
                self._held[number] = (renew, time_s / 3, due)
                if self._start() and due < self._sleeps_until:
                    self._wake.notify()
            yield
        finally:
            with self._wake:
                self._held.pop(number, None)

    def ensure_running(self) -> bool:
        """Return True if renewals will happen; False if the system allows no thread now."""
        with self._wake:
            return self._start()

    def _start(self) -> bool:
        if not self._running:
            self._running = helper_thread.start("cacheapp-renewer", self._run)
        return self._running

    def _run(self) -> None:
        while True:
            for number, renew in self._due():
                self._renew(number, renew)

    def _due(self) -> list[tuple[int, Callable[[], bool]]]:
        """Wait until renewals are due; return them, and set their next time."""
        with self._wake:
            now = clock.monotonic_s()
            next_turn = min((due for _renew, _every, due in self._held.values()), default=math.inf)
            if next_turn > now:
                self._sleeps_until = next_turn
                self._wake.wait(None if next_turn == math.inf else next_turn - now)
                return []
            found = [(number, held) for number, held in self._held.items() if held[2] <= now]
            for number, (renew, every_s, _due) in found:
                self._held[number] = (renew, every_s, now + every_s)
            return [(number, held[0]) for number, held in found]

    def _renew(self, number: int, renew: Callable[[], bool]) -> None:
        try:
            renewed = renew()
        except CacheappError as exc:
            logger.debug("renewing failed, and will be retried: %s", exc)
        except Exception:
            logger.exception("renewing failed")  # this thread serves all holders and must not end
        else:
            if not renewed:
                with self._wake:
                    self._held.pop(number, None)

    def after_fork_in_child(self) -> None:
        """Forget the parent's leases and locks, and its thread, which the child does not have."""
        self.__init__()  # type: ignore[misc]


renewer = Renewer()
os.register_at_fork(after_in_child=renewer.after_fork_in_child)
