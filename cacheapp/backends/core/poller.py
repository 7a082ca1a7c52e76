"""Polls keys for all waiting callers of this process, in one thread for all keys.

For stores that cannot notify. Reading all keys together costs less than one thread per key, because
threads that wake up compete for the interpreter.
"""

import asyncio
import contextlib
import logging
import queue
import random
import threading
from collections.abc import Callable, Collection, Mapping

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.watches import LONGEST_S, SHORTEST_S
from cacheapp.errors import CacheappError
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)
_GROWTH = 1.5
_IDLE_S = 10.0

Wake = Callable[[], None]
Changed = Callable[[Mapping[str, Payload]], Collection[str]]


class NoThread(Exception):
    """No thread can watch the key now, so the caller must not wait."""


class _Watch:
    """One wait: the payload that was seen at a key, and the time of the next look."""

    def __init__(self, key: str, seen: Payload, wake: Wake, pause_s: float) -> None:
        self.key = key
        self.seen = seen
        self.wake = wake
        self.pause_s = pause_s
        self.longest_s = max(pause_s, LONGEST_S)
        self.due_s = clock.monotonic_s() + pause_s


class Poller:
    """Wakes callers when their key has changed; `changed` returns the keys that have.

    `_lock` guards all fields. The thread is a daemon, and ends after it has had no watches for some
    time. A forked child needs a new poller.

    The lock is reentrant: inside it, a signal handler or finaliser may add and remove watches of
    its own. So each change is one step, and loops run over a copy. At worst a second thread is
    started, which shares the work. `with self._wake` would run Python code between the acquisition
    and the block, where an exception of a handler would leave the lock held.
    """

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._lock = reentrant_lock()
        self._wake = threading.Condition(self._lock)
        self._watches: set[_Watch] = set()
        self._running = False
        self._offset_s = random.random() * LONGEST_S  # noqa: S311 (spreads the processes' looks)

    def add(
        self, key: str, seen: Payload, wake: Wake, pause_s: float = SHORTEST_S
    ) -> Callable[[], None]:
        """Call `wake` once when the key may have changed; return a function that cancels this.

        The key is read after `pause_s`, and then at growing intervals. Raises `NoThread`, with
        nothing added, if the system allows no thread now.
        """
        watch = _Watch(key, seen, wake, pause_s)
        with self._lock:
            if not self._running:
                self._running = helper_thread.start("cacheapp-poller", self._run)
                if not self._running:
                    raise NoThread
            self._watches.add(watch)
            self._wake.notify()

        def end() -> None:
            with self._lock:
                self._watches.discard(watch)

        return end

    def wait(self, key: str, seen: Payload, within_s: float) -> None:
        """Return when the key may have changed, or after `within_s` seconds."""
        # Unlike an event, it has no lock that the poller's thread would wait for while a signal
        # handler interrupts this call.
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        end = self.add(key, seen, lambda: woken.put(None))
        try:
            with contextlib.suppress(queue.Empty):
                woken.get(timeout=within_s)
        finally:
            end()

    async def await_(self, key: str, seen: Payload, within_s: float) -> None:
        """Async twin of `wait`."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
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
                with self._lock:
                    self._watches.discard(watch)
                watch.wake()

    def _due(self) -> list[_Watch] | None:
        """Wait until watches are due; return them, and set their next time. `None`: none is left."""
        with self._lock:
            if not self._watches and not self._wake.wait(_IDLE_S) and not self._watches:
                self._running = False
                return None
            now_s = clock.monotonic_s()
            watches = self._watches.copy()
            next_s = min((watch.due_s for watch in watches), default=now_s)
            if next_s > now_s:
                self._wake.wait(next_s - now_s)
                return []
            return self._take_due(watches, now_s)

    def _take_due(self, watches: set[_Watch], now_s: float) -> list[_Watch]:
        due = [watch for watch in watches if watch.due_s <= now_s]
        for watch in due:
            watch.pause_s = min(watch.pause_s * _GROWTH, watch.longest_s)
            # On a grid, so that eventually all keys are read together.
            turn = (now_s - self._offset_s) // watch.pause_s + 1
            watch.due_s = self._offset_s + turn * watch.pause_s
        return due

    def _look(self, due: list[_Watch]) -> list[_Watch]:
        """Return the watches to wake: all of them if the store fails, so that each caller sees that."""
        try:
            changed: Collection[str] = self._changed({watch.key: watch.seen for watch in due})
        except CacheappError as exc:
            logger.debug("polling keys failed: %s", exc)
            return due
        except Exception:
            logger.exception("polling keys failed")
            return due  # this thread serves all callers and must not end
        return [watch for watch in due if watch.key in changed]
