"""Looks at keys again and again for all that wait in this process: one thread for all keys.

For stores that nothing wakes. A look at all keys together costs less than a thread per key would:
threads that wake up take the interpreter from each other.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.watches import LONGEST_S, SHORTEST_S
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)
_GROWTH = 1.5
_IDLE_S = 10.0

Wake = Callable[[], None]
Changed = Callable[[Mapping[str, Payload]], Collection[str]]


class _Watch:
    """One wait: what was seen at a key, and when to look next."""

    def __init__(self, key: str, seen: Payload, wake: Wake, pause_s: float) -> None:
        self.key = key
        self.seen = seen
        self.wake = wake
        self.pause_s = pause_s
        self.longest_s = max(pause_s, LONGEST_S)
        self.due_s = clock.monotonic_s() + pause_s


class Poller:
    """`changed` returns those keys at which something else stands than what was seen there.

    `_wake` (a condition) guards all fields. The thread is a daemon, and ends when there was nothing
    to look at for a while. A forked child needs a new poller.
    """

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._wake = threading.Condition()
        self._watches: set[_Watch] = set()
        self._running = False
        self._offset_s = random.random() * LONGEST_S  # noqa: S311 (processes should take turns)

    def add(
        self, key: str, seen: Payload, wake: Wake, pause_s: float = SHORTEST_S
    ) -> Callable[[], None]:
        """Call `wake` once when the key may have changed; return what ends that earlier.

        It is looked at after `pause_s`, and then again after pauses that grow.
        """
        watch = _Watch(key, seen, wake, pause_s)
        with self._wake:
            self._watches.add(watch)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="cacheapp-poller", daemon=True).start()
            else:
                self._wake.notify()

        def end() -> None:
            with self._wake:
                self._watches.discard(watch)

        return end

    def wait(self, key: str, seen: Payload, within_s: float) -> None:
        """Return when the key may have changed, or the time is over."""
        event = threading.Event()
        end = self.add(key, seen, event.set)
        try:
            event.wait(within_s)
        finally:
            end()

    async def await_(self, key: str, seen: Payload, within_s: float) -> None:
        """Do what `wait` does, for a task."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(event.set)

        end = self.add(key, seen, wake)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), within_s)
        finally:
            end()

    def _run(self) -> None:
        while (due := self._due()) is not None:
            if not due:
                continue
            for watch in self._look(due):
                with self._wake:
                    self._watches.discard(watch)
                watch.wake()

    def _due(self) -> list[_Watch] | None:
        """Wait until something is due; return it, and plan its next turn. `None`: nothing is left."""
        with self._wake:
            if not self._watches and not self._wake.wait(_IDLE_S) and not self._watches:
                self._running = False
                return None
            now_s = clock.monotonic_s()
            next_s = min((watch.due_s for watch in self._watches), default=now_s)
            if next_s > now_s:
                self._wake.wait(next_s - now_s)
                return []
            due = [watch for watch in self._watches if watch.due_s <= now_s]
            for watch in due:
                watch.pause_s = min(watch.pause_s * _GROWTH, watch.longest_s)
                # On a grid, so that in time all keys are looked at together.
                turn = (now_s - self._offset_s) // watch.pause_s + 1
                watch.due_s = self._offset_s + turn * watch.pause_s
            return due

    def _look(self, due: list[_Watch]) -> list[_Watch]:
        """Return the watches to wake: all of them if the store fails, so that each caller sees it."""
        try:
            changed: Collection[str] = self._changed({watch.key: watch.seen for watch in due})
        except CacheappError as exc:
            logger.debug("a look at keys that are waited for failed: %s", exc)
            return due
        except Exception:
            logger.exception("looking at keys that are waited for failed")
            return due  # this thread serves all others: it goes on
        return [watch for watch in due if watch.key in changed]
