"""How RedisStore waits for a key to change: woken by the server, and looking itself now and then.

Every script that ends a lease publishes to the channel of the key, in the same step. Who waits
subscribes first and looks then, so it misses nothing between the two. Plain commands (SET, FLUSHDB)
and a lease whose time is over publish nothing: those are found by looking, every quarter of a second.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from cacheapp import clock
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import Store
from cacheapp.backends.redis.encoding import encode_key
from cacheapp.backends.redis.listener import Ear, Listener
from cacheapp.backends.redis.scripts import WAKE_CHANNEL

LOOK_EVERY_S = 0.25
_CHANNEL = WAKE_CHANNEL.encode()


class RedisWaiting(Store):
    """Mix-in: waiting for a key. Where nobody can listen, it looks, as any store does."""

    _listener: Listener

    def _watch(self, key: str, seen: Payload, within_s: float) -> None:
        deadline_s = clock.monotonic_s() + within_s
        with self._listener.listening(_CHANNEL + encode_key(key)) as ear:
            if _done(ear.standing, min(LOOK_EVERY_S, within_s)) and ear.standing.result():
                if self.get(key) == seen:
                    with self._looking(key, seen, ear):
                        _done(ear.heard, deadline_s - clock.monotonic_s())
                return
        super()._watch(key, seen, deadline_s - clock.monotonic_s())

    @contextlib.contextmanager
    def _looking(self, key: str, seen: Payload, ear: Ear) -> Iterator[None]:
        """Look at the key now and then, with all others in one command, for what is not published."""
        end = self._poller.add(key, seen, ear.hears, LOOK_EVERY_S)
        try:
            yield
        finally:
            end()

    async def _awatch(self, key: str, seen: Payload, within_s: float) -> None:
        deadline_s = clock.monotonic_s() + within_s
        with self._listener.listening(_CHANNEL + encode_key(key)) as ear:
            if await _adone(ear.standing, min(LOOK_EVERY_S, within_s)) and ear.standing.result():
                if await in_thread(self.get, key) == seen:
                    with self._looking(key, seen, ear):
                        await _adone(ear.heard, deadline_s - clock.monotonic_s())
                return
        await super()._awatch(key, seen, deadline_s - clock.monotonic_s())


def _done(future: Future[Any], within_s: float) -> bool:
    """Wait for the future; return whether it is done."""
    with contextlib.suppress(TimeoutError):
        future.result(max(0.0, within_s))
    return future.done()


async def _adone(future: Future[Any], within_s: float) -> bool:
    """Await the future, without cancelling it with this task; return whether it is done."""
    await asyncio.wait([asyncio.wrap_future(future)], timeout=max(0.0, within_s))
    return future.done()
