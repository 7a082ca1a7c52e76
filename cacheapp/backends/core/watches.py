"""Waits for a key to change, with one watcher per key and process; other callers wait for it."""

import asyncio
import contextlib
import queue
from collections.abc import Awaitable, Callable, Iterator

from cacheapp import clock

SHORTEST_S = 0.001
LONGEST_S = 0.03  # a caller is woken within 50 ms; a hundred of them cost next to nothing


def pauses(within_s: float, every_s: float | None = None) -> Iterator[float]:
    """Yield pauses of `every_s` seconds, or growing ones, until `within_s` seconds are over."""
    deadline = clock.monotonic_s() + within_s
    pause_s = every_s or SHORTEST_S
    while (left_s := deadline - clock.monotonic_s()) > 0:
        yield min(pause_s, left_s)
        pause_s = every_s or min(pause_s * 1.5, LONGEST_S)


class Watches:
    """The watched keys.

    `_waiting` holds, per watched key, a queue for each caller that waits for its watcher, and
    `None` at the end once the watcher has returned. Each event loop uses only its own `_futures`.

    There is no lock, because a signal handler may wait for a key at any point of `wait`: every
    change is one step of a list or dict. A caller that adds itself too late to be woken finds that
    the key is not watched any more.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[queue.SimpleQueue[None] | None]] = {}
        self._futures: dict[tuple[int, str], asyncio.Future[None]] = {}

    def wait(self, key: str, within_s: float, watch: Callable[[], None]) -> None:
        """Call `watch`, or wait for the thread that watches this key."""
        own: list[queue.SimpleQueue[None] | None] = []
        try:
            watched = self._waiting.setdefault(key, own)
            if watched is not own and None in watched:
                watched = self._waiting[key] = own  # its watcher was interrupted while it returned
            if watched is own:
                watch()
                return
            woken: queue.SimpleQueue[None] = queue.SimpleQueue()
            watched.append(woken)
            if self._waiting.get(key) is watched and None not in watched:
                with contextlib.suppress(queue.Empty):
                    woken.get(timeout=within_s)
        finally:
            own.append(None)  # first, in one step
            if self._waiting.get(key) is own:
                del self._waiting[key]
            for waiting in own:
                if waiting is not None:
                    waiting.put(None)

    async def await_(self, key: str, within_s: float, watch: Callable[[], Awaitable[None]]) -> None:
        """Await `watch`, or wait for the task of this event loop that watches this key."""
        loop = asyncio.get_running_loop()
        name = (id(loop), key)
        future = self._futures.get(name)
        if future is not None:
            await asyncio.wait([future], timeout=within_s)
            return
        own = self._futures[name] = loop.create_future()
        try:
            await watch()
        finally:
            del self._futures[name]
            if not own.done():
                own.set_result(None)
