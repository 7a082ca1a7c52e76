"""Renews the leases and locks of this process while they are held."""

import contextlib
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.backends.local import forks
from cacheapp.errors import CacheappError
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)

_Renewal = tuple[Callable[[], bool], float, float]
"""The function that renews, its interval, and its next time."""


class Renewer:
    """Renews from one daemon thread, which starts with the first lease or lock and never ends.

    `_lock` guards all fields; `_held` maps a number to a renewal. A stopped or dead process renews
    nothing, so its leases end.

    The lock is reentrant: inside it, a signal handler or finaliser may add and remove renewals of
    its own. So each change is one step, and loops run over a copy. At worst a second thread is
    started, which shares the work. `with self._wake` would run Python code between the acquisition
    and the block, where an exception of a handler would leave the lock held.
    """

    def __init__(self) -> None:
        self._lock = reentrant_lock()
        self._wake = threading.Condition(self._lock)
        self._held: dict[int, _Renewal] = {}
        self._numbers = itertools.count(1)
        self._running = False
        self._sleeps_until = math.inf

    @contextlib.contextmanager
    def renewing(self, renew: Callable[[], bool], time_s: float) -> Iterator[None]:
        """Call `renew` every `time_s / 3` seconds until the block ends or `renew` returns False.

        Without a thread, the block runs all the same, and `renew` is called once there is one.
        """
        number, due = next(self._numbers), clock.monotonic_s() + time_s / 3
        try:
            self._held[number] = (renew, time_s / 3, due)
            with self._lock:
                if self._start() and due < self._sleeps_until:
                    self._wake.notify()
            yield
        finally:
            with self._lock:
                self._held.pop(number, None)

    def ensure_running(self) -> bool:
        """Return True if renewals will happen; False if the system allows no thread now."""
        with self._lock:
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
        with self._lock:
            now = clock.monotonic_s()
            held = self._held.copy()
            next_turn = min((due for _renew, _every, due in held.values()), default=math.inf)
            if next_turn > now:
                self._sleeps_until = next_turn
                self._wake.wait(None if next_turn == math.inf else next_turn - now)
                return []
            return self._take_due(held, now)

    def _take_due(
        self, held: dict[int, _Renewal], now: float
    ) -> list[tuple[int, Callable[[], bool]]]:
        found = [(number, entry) for number, entry in held.items() if entry[2] <= now]
        for number, (renew, every_s, _due) in found:
            if number in self._held:
                self._held[number] = (renew, every_s, now + every_s)
        return [(number, entry[0]) for number, entry in found]

    def _renew(self, number: int, renew: Callable[[], bool]) -> None:
        try:
            renewed = renew()
        except CacheappError as exc:
            logger.debug("renewing failed, and will be retried: %s", exc)
        except Exception:
            logger.exception("renewing failed")  # this thread serves all holders and must not end
        else:
            if not renewed:
                with self._lock:
                    self._held.pop(number, None)

    def after_fork_in_child(self) -> None:
        """Forget the parent's leases and locks, and its thread, which the child does not have."""
        self.__init__()  # type: ignore[misc]


renewer = Renewer()
forks.register(in_child=renewer.after_fork_in_child)
