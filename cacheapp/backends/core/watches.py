"""Waits for a key to change, with one watcher per key and process; other callers wait for it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

from cacheapp import clock

SHORTEST_S = 0.001
LONGEST_S = 0.03  # a caller is woken within 50 ms; a hundred of them cost next to nothing


def pauses(within_s: float) -> Iterator[float]:
    """Yield growing pauses, in seconds, until `within_s` seconds are over."""
    deadline = clock.monotonic_s() + within_s
    pause_s = SHORTEST_S
    while (left_s := deadline - clock.monotonic_s()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(pause_s * 1.5, LONGEST_S)


class Watches:
    """The watched keys. `_lock` guards `_events`; each event loop uses only its own `_futures`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}
        self._futures: dict[tuple[int, str], asyncio.Future[None]] = {}

    def wait(self, key: str, within_s: float, watch: Callable[[], None]) -> None:
        """Call `watch`, or wait for the thread that watches this key."""
        with self._lock:
            event = self._events.get(key)
            if event is None:
                own = self._events[key] = threading.Event()
        if event is not None:
            event.wait(within_s)
            return
        try:
            watch()
        finally:
            with self._lock:
                del self._events[key]
            own.set()

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
