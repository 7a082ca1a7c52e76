"""Receive what is published about keys: one connection and one thread for all waits of a process.

The listener only makes waits end sooner. A message may be lost with the connection, so callers also
poll the key at intervals. The connection is not taken from the pool: waits use up none of the
connections that commands need.
"""

import asyncio
import contextlib
import logging
import os
import select
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.local.slot_file import identity_of_descriptor
from cacheapp.backends.redis.connection_advice import on_refusal
from cacheapp.backends.redis.connection_pool import connect, is_socket_intact
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)

_refused = LogThrottle()

_IDLE_S = 5.0  # then the connection is closed: an unused connection may break unnoticed
_PAUSE_S = 1.0  # without a new connection after a failure; waits poll during this time


class Subscription:
    """One wait for one channel.

    `confirmed` becomes True once messages will arrive, False if none will; `notified` is done when
    a message arrived or none can arrive any more.
    """

    def __init__(self) -> None:
        self.confirmed: Future[bool] = Future()
        self.notified: Future[None] = Future()

    def confirm(self, *, active: bool) -> None:
        """Set whether messages will arrive; later calls have no effect."""
        with contextlib.suppress(InvalidStateError):
            self.confirmed.set_result(active)

    def notify(self) -> None:
        """End the wait; later calls have no effect."""
        with contextlib.suppress(InvalidStateError):
            self.notified.set_result(None)

    def end(self) -> None:
        """End the wait because no message will arrive any more."""
        self.confirm(active=False)
        self.notify()


def wait_until_done(future: Future[Any], within_s: float) -> bool:
    """Wait for the future; return True if it is done."""
    return bool(wait([future], max(0.0, within_s)).done)


async def await_until_done(future: Future[Any], within_s: float) -> bool:
    """Await the future, without cancelling it with this task; return True if it is done."""
    await asyncio.wait([asyncio.wrap_future(future)], timeout=max(0.0, within_s))
    return future.done()


class _ListenerConnection:
    """What the listener's thread waits on: a Redis connection, and a pipe that wakes the thread."""

    def __init__(self) -> None:
        self.redis: Any = None  # until the thread has connected
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pipe = identity_of_descriptor(self.read_end)  # of both ends
        self.stopping = False

    def is_intact(self) -> bool:
        """Return False if other code has closed the descriptors, which may be of other files now."""
        return (
            identity_of_descriptor(self.read_end) == self._pipe
            and identity_of_descriptor(self.write_end) == self._pipe
            and (
                self.redis is None
                or self.redis._sock is None  # noqa: SLF001
                or is_socket_intact(self.redis)
            )
        )

    def forget(self) -> None:
        """Close nothing, because the descriptors may be of other files."""
        if self.redis is not None and self.redis._sock is not None:  # noqa: SLF001
            self.redis._sock.detach()  # noqa: SLF001

    def wake(self) -> None:
        """Make the thread look at the current subscriptions."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread too
            os.write(self.write_end, b"x")

    def close(self) -> None:
        """Close the connection and the pipe."""
        if not self.is_intact():
            self.forget()
            return
        if self.redis is not None:
            self.redis.disconnect()
        os.close(self.read_end)
        os.close(self.write_end)


class Listener:
    """Subscribes to the channels of the current waits.

    `_lock` guards `_subscriptions`, `_connection` and `_not_before_s`. A connection belongs to its
    thread, which removes it from `_connection` before closing it; other threads only wake it, while
    they hold the lock.
    """

    def __init__(
        self,
        new_connection: Callable[..., Any],
        is_up: Callable[[], bool],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._new_connection = new_connection
        self._is_up = is_up
        self._failed = failed  # called by the thread at its end
        self._lock = reentrant_lock()
        self._subscriptions: dict[bytes, list[Subscription]] = {}
        self._connection: _ListenerConnection | None = None
        self._not_before_s = 0.0

    @contextlib.contextmanager
    def subscribe(self, channel: bytes) -> Iterator[Subscription]:
        """Listen to the channel until the block ends."""
        subscription = Subscription()
        with self._lock:
            if self._connection is not None and not self._connection.is_intact():
                self._connection = None  # its thread ends when it notices
            connection = self._connection or self._start()
            if connection is not None:
                self._subscriptions.setdefault(channel, []).append(subscription)
                connection.wake()
        if connection is None:
            subscription.confirm(active=False)
        try:
            yield subscription
        finally:
            with self._lock:
                self._remove(channel, subscription)
            subscription.end()  # for other threads that wait for it

    def _remove(self, channel: bytes, subscription: Subscription) -> None:
        subscriptions = self._subscriptions.get(channel, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                del self._subscriptions[channel]
                if self._connection is not None and self._connection.is_intact():
                    self._connection.wake()

    def _start(self) -> _ListenerConnection | None:
        """Start a thread that listens; return `None` while Redis is known to be down."""
        if not self._is_up() or clock.monotonic_s() < self._not_before_s:
            return None
        connection = _ListenerConnection()
        if not helper_thread.start("cacheapp-listener", self._run, connection):
            connection.close()
            return None
        self._connection = connection
        return connection

    # -- the thread --------------------------------------------------------------------------

    def _run(self, connection: _ListenerConnection) -> None:
        failed = True
        try:
            connection.redis = self._new_connection(protocol=2)  # whose messages are arrays
            connect(connection.redis)
            self._listen(connection)
            failed = False
        except (redis.RedisError, OSError) as exc:
            _note_end(exc)
        except Exception:
            logger.exception("the listener failed; waits use polling")
        finally:
            if failed and self._connection in {connection, None}:
                self._end(failed=True)
            connection.close()
            if failed:
                self._failed()

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            ended, self._subscriptions = self._subscriptions, {}
            self._connection = None
            if failed:
                self._not_before_s = clock.monotonic_s() + _PAUSE_S
        for subscriptions in ended.values():
            for subscription in subscriptions:
                subscription.end()

    def _listen(self, connection: _ListenerConnection) -> None:
        """Keep the subscriptions current and deliver messages, until none was needed for a while."""
        requested: set[bytes] = set()
        active: set[bytes] = set()
        unanswered_s: float | None = None  # since when
        reply_within_s = connection.redis.socket_timeout or _IDLE_S
        poll = select.poll()
        poll.register(connection.read_end, select.POLLIN)
        poll.register(connection.redis._get_socket(), select.POLLIN)  # noqa: SLF001
        while True:
            before = requested
            requested = self._update_channels(connection.redis, before, active)
            active &= requested
            if requested != before and unanswered_s is None:
                unanswered_s = clock.monotonic_s()
            within_s = _IDLE_S if unanswered_s is None else reply_within_s
            ready = [descriptor for descriptor, _ in poll.poll(within_s * 1000)]
            if connection.stopping:
                return
            if not connection.is_intact():
                raise redis.ConnectionError("other code has closed the descriptors")
            if connection.read_end in ready:
                os.read(connection.read_end, 4096)
                ready.remove(connection.read_end)
            elif not ready and self._is_idle():
                return
            if ready:
                self._receive(connection.redis, requested, active)
                unanswered_s = None
            elif unanswered_s is not None and clock.monotonic_s() > unanswered_s + reply_within_s:
                raise redis.TimeoutError(f"no reply to SUBSCRIBE within {reply_within_s:g} s")

    def _is_idle(self) -> bool:
        """Return True if there is no wait; a later one then starts another thread."""
        with self._lock:
            if not self._subscriptions:
                self._connection = None
            return not self._subscriptions

    def _update_channels(
        self, connection: Any, requested: set[bytes], active: set[bytes]
    ) -> set[bytes]:
        """Subscribe to the channels of the current waits, and to no others; return them."""
        with self._lock:
            wanted = set(self._subscriptions)
            for channel in wanted & active:
                for subscription in self._subscriptions[channel]:
                    subscription.confirm(active=True)
        if new := wanted - requested:
            connection.send_command(b"SUBSCRIBE", *new, check_health=False)
        if old := requested - wanted:
            connection.send_command(b"UNSUBSCRIBE", *old, check_health=False)
        return wanted

    def _receive(self, connection: Any, requested: set[bytes], active: set[bytes]) -> None:
        """Read all messages that have arrived."""
        while True:
            kind, channel, _ = connection.read_response(disable_decoding=True)
            with self._lock:
                subscriptions = tuple(self._subscriptions.get(channel, ()))
            if kind == b"message":
                for subscription in subscriptions:
                    subscription.notify()
            elif kind == b"subscribe" and channel in requested:
                active.add(channel)
                for subscription in subscriptions:
                    subscription.confirm(active=True)
            if not connection.can_read():
                return

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the thread, and end all waits."""
        with self._lock:
            connection = self._connection
            if connection is not None and connection.is_intact():
                connection.stopping = True
                connection.wake()
        self._end(failed=False)

    def close_in_child(self) -> None:
        """Close what a forked child inherited, without sending anything; the child has no thread.

        redis-py does not shut down a connection that another process has made.
        """
        if self._connection is not None:
            self._connection.close()


def _note_end(reason: Exception) -> None:
    """Log why a connection ended; what the calls of the cache notice themselves only for debugging."""
    if isinstance(reason, NoPermissionError):
        if _refused.due() is not None:
            logger.warning(
                "Redis does not let this user wait for values that others compute (%s%s): waits poll, and "
                "end up to a second late",
                reason,
                on_refusal(str(reason)),
                extra={"event": "redis_wakeups_refused"},
            )
        return
    logger.debug("the listener lost its connection; waits use polling: %s", reason)
