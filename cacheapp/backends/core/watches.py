"""Waiting for a key to change: one watcher per key and process, whom the others wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

from cacheapp import clock

SHORTEST_S = 0.001
LONGEST_S = 0.03  # a waiter learns within 50 ms; a hundred of them cost next to nothing


def pauses(within_s: float) -> Iterator[float]:
    """Yield pauses in seconds that grow, until `within_s` are over."""
    deadline = clock.monotonic_s() + within_s
    pause_s = SHORTEST_S
    while (left_s := deadline - clock.monotonic_s()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(pause_s * 1.5, LONGEST_S)


class Watches:
    """Who watches which key. `_lock` guards `_events`; tasks of a loop have `_futures` alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}
        self._futures: dict[tuple[int, str], asyncio.Future[None]] = {}

    def wait(self, key: str, within_s: float, watch: Callable[[], None]) -> None:
        """Call `watch`, or wait for the thread that is doing it for this key."""
        with self._lock:
            event = self._events.get(key)
            if event is None:
                mine = self._events[key] = threading.Event()
        if event is not None:
            event.wait(within_s)
            return
        try:
            watch()
        finally:
            with self._lock:
                del self._events[key]
            mine.set()

    async def await_(self, key: str, within_s: float, watch: Callable[[], Awaitable[None]]) -> None:
        """Await `watch`, or wait for the task of this loop that is doing it for this key."""
        loop = asyncio.get_running_loop()
        name = (id(loop), key)
        future = self._futures.get(name)
        if future is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(future), within_s)
            return
        mine = self._futures[name] = loop.create_future()
        try:
            await watch()
        finally:
            del self._futures[name]
            if not mine.done():
                mine.set_result(None)
