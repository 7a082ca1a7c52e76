"""Connections to Redis: one pool per process and store, whose callers wait for a free connection.

django-redis's factories build the pool from its own OPTIONS, with three corrections: the pool is
not shared with other users of the same URL, it waits with a deadline, and it hands out no
connection that is known to be stale or may hold the reply to another caller's command.
"""

import contextlib
import functools
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory, SentinelConnectionFactory
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool, HiredisRespSerializer
from redis.driver_info import DriverInfo
from redis.event import AfterConnectionReleasedEvent
from redis.exceptions import MaxConnectionsError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from cacheapp import clock
from cacheapp.backends.local.interruptions import raised_by_handler
from cacheapp.backends.local.running_calls import RunningCalls, has_stacks
from cacheapp.backends.local.slot_file import identity_of_descriptor
from cacheapp.thread_lock import reentrant_lock

# Computed once. redis-py would read its package's metadata for each connection, and import what
# that needs: after a fork during the import, the child would wait for it for ever.
_DRIVER = DriverInfo()
_DRIVER_ARGUMENTS = frozenset({"driver_info", "lib_name", "lib_version"})
_AfterRelease: Any = AfterConnectionReleasedEvent  # no types
_LOOK_S = 0.05  # so long a call waits before it looks for what interrupted ones have left
_loans = RunningCalls()
borrower = _loans.register
"""Registers a function that calls `lend`, and releases the connection before it returns."""


class _Waiter:
    """A call that waits for a connection."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.thread = threading.get_ident()
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()


class BoundedConnectionPool(ConnectionPool):
    """A pool of at most `max_connections`; further calls wait up to `pool_timeout` seconds.

    Invariants: every connection in use is in `_in_use_connections`, which is what the limit counts.
    Calls that wait are in `_waiting`, and are served strictly in order; otherwise a thread that
    releases its connection would take it again before a waiting thread wakes up, for ever.
    `_lock`, which redis-py takes too, guards all three collections. It is reentrant, as is
    `SimpleQueue` and unlike a semaphore: a signal handler may use the cache while its thread takes or
    releases a connection.

    A handler may also raise where a connection is taken or released, and then no one releases it. So a
    connection notes the thread that borrowed it, and is taken back if no `borrower` is on the stack of
    that thread. Only a call that waits for long looks for such connections.
    """

    def __init__(self, *, pool_timeout: float, max_connections: int, **kwargs: Any) -> None:
        self._pool_timeout_s = pool_timeout
        self._waiting: deque[_Waiter] = deque()
        self._has_own_listeners = kwargs.get("event_dispatcher") is not None
        super().__init__(max_connections=max_connections, **kwargs)
        self._lock = reentrant_lock()

    @borrower
    def get_connection(self, *_args: Any, **_options: Any) -> Any:
        """Do as `lend` for code of others, which may keep the connection."""
        connection = self.lend()
        connection.borrowed_by = None
        return connection

    def lend(self) -> Any:
        """Return a connected connection without unread data; `release` it afterwards.

        If this raises, no command was sent. `MaxConnectionsError`: no connection became free in
        time.
        """
        self._checkpid()  # for clients that were kept across a fork; our stores replace theirs
        connection = self._take(None)
        if connection is None:
            connection = self._wait_and_take()
        try:
            _ensure_ready(connection)
        except BaseException:
            # A Sentinel connection that is interrupted in its handshake stays connected, and the
            # next caller would read the reply to the handshake.
            connection.disconnect()
            self.release(connection)
            raise
        return connection

    def _take(self, waiter: _Waiter | None) -> Any:
        """Return a connection, possibly not connected yet; `None` if the caller must wait."""
        with self._lock:
            if self._waiting:
                self._drop_expired()
            if self._waiting and self._waiting[0] is not waiter:
                return None
            busy, idle = self._in_use_connections, self._available_connections
            if len(busy) >= self.max_connections:
                return None
            # redis-py's own count would stay too high after an interruption.
            self._created_connections = len(busy) + len(idle)
            connection: Any = idle.pop() if idle else self.make_connection()
            connection.borrowed_by = threading.get_ident()
            busy.add(connection)
            return connection

    def _drop_expired(self) -> None:
        """Remove waiters whose thread was interrupted before it could remove them."""
        while self._waiting and self._waiting[0].deadline_s < clock.monotonic_s():
            self._waiting.popleft()

    def make_connection(self) -> Any:
        """Make a connection, not connected yet."""
        connection: Any = super().make_connection()
        if not hasattr(connection, "port"):
            connection.port = None  # redis-py needs it to report a time-out of a unix socket
        return connection

    def _wait_and_take(self) -> Any:
        """Wait for this call's turn and return a connection."""
        waiter = _Waiter(clock.monotonic_s() + self._pool_timeout_s)
        try:
            with self._lock:
                self._waiting.insert(self._queue_position(waiter), waiter)
            connection = self._take_in_turn(waiter)
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            self._wake_next()
        if connection is not None:
            return connection
        raise MaxConnectionsError(
            f"all {self.max_connections} connections (OPTIONS['max_connections']) were busy "
            f"for {self._pool_timeout_s:g} s (OPTIONS['pool_timeout'])"
        )

    def _take_in_turn(self, waiter: _Waiter) -> Any:
        while True:
            if (connection := self._take(waiter)) is not None:
                return connection
            left_s = waiter.deadline_s - clock.monotonic_s()
            if left_s > 0:
                with contextlib.suppress(queue.Empty):
                    waiter.woken.get(timeout=min(left_s, _LOOK_S))
                    continue
            if not self._take_back() and left_s <= 0:
                return None

    def _take_back(self) -> bool:
        """Take back what interrupted calls have left: their connections, and their places in line.

        Return True if there was a connection.
        """
        if not has_stacks():
            return False
        with self._lock:
            left = self._left_borrowed()
            for connection in left:
                connection.disconnect()  # the reply to an interrupted command may be unread
                self.release(connection)
            for waiter in self._left_waiting():
                self._waiting.remove(waiter)
        return bool(left)

    def _left_borrowed(self) -> list[Any]:
        me = threading.get_ident()  # on whose stack is the borrower that waits
        return [
            connection
            for connection in self._in_use_connections
            if (thread := connection.borrowed_by) is not None
            and _loans.count(thread) <= (thread == me)
        ]

    def _left_waiting(self) -> list[_Waiter]:
        me = threading.get_ident()
        return [
            each for each in self._waiting if each.thread != me and not _loans.count(each.thread)
        ]

    def _queue_position(self, waiter: _Waiter) -> int:
        """Return the end of the queue, or the place before this thread's own interrupted wait."""
        threads = [other.thread for other in self._waiting]
        return threads.index(waiter.thread) if waiter.thread in threads else len(threads)

    def _wake_next(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.put(None)

    def release(self, connection: Any) -> None:
        """Return a connection to the pool.

        redis-py's own method also records metrics, by code that ignores any exception, even one
        that a signal handler raises.
        """
        self._checkpid()
        with self._lock:
            if connection not in self._in_use_connections:
                return
            self._in_use_connections.remove(connection)
            if self.owns_connection(connection):
                if connection.should_reconnect():
                    connection.disconnect()
                self._available_connections.append(connection)
                # redis-py's own dispatcher has one listener, which sends a new token.
                if self._has_own_listeners or connection._re_auth_token is not None:  # noqa: SLF001
                    dispatcher: Any = self._event_dispatcher
                    dispatcher.dispatch(_AfterRelease(connection))
            else:
                connection.disconnect()
        if self._waiting:
            self._wake_next()


def _ensure_ready(connection: Any) -> None:
    """Connect; reconnect if the server closed the connection or sent unexpected data.

    If other code has closed the socket, its descriptor may belong to another file: then nothing is
    sent there, and it is not closed.
    """
    handled_before = sys.exception()
    if connection.is_connected:
        if not is_socket_intact(connection):
            connection._sock.detach()  # noqa: SLF001 (`_get_socket` would connect)
            connection.disconnect()
            connect(connection)
            return
        try:
            # `connection.can_read` does the same, and prepares a message for each call.
            if not connection._parser.can_read(0):  # noqa: SLF001
                return
        except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
            if raised_by_handler(exc, handled_before) is not None:
                raise
        connection.disconnect()
    connect(connection)


def outside_of(pool: Any, **changes: Any) -> Any:
    """Return a connection like those of the pool, not connected yet, that the pool does not know."""
    return pool.connection_class(**{**pool.connection_kwargs, **changes})


def connect(connection: Any) -> None:
    """Connect, and note which file the socket is."""
    connection.connect()
    is_socket_intact(connection)


def is_socket_intact(connection: Any) -> bool:
    """Return False if other code has closed the socket. The first call for a socket notes which it is."""
    sock = connection._sock  # noqa: SLF001 (`_get_socket` would connect)
    identity = identity_of_descriptor(sock.fileno())
    known, expected = getattr(connection, "known_socket", (None, None))
    if known is not sock:  # redis-py also connects by itself
        connection.known_socket = sock, identity
        return True
    return bool(identity == expected)


@functools.cache
def _bounded_class(pool_class: Any) -> Any:
    if pool_class is BlockingConnectionPool:
        pool_class = ConnectionPool  # `BoundedConnectionPool` replaces its blocking
    if issubclass(pool_class, BoundedConnectionPool):
        return pool_class
    return type(f"Bounded{pool_class.__name__}", (BoundedConnectionPool, pool_class), {})


class _Packer(HiredisRespSerializer):
    """Packs commands with hiredis, which gets every number as bytes.

    It converts numbers by `repr`, which runs pending signal handlers, and crashes if one raises
    (hiredis 3.5).
    """

    def pack(self, *args: Any) -> Any:
        """Return the packed command in a list. Ours need none of redis-py's conversions."""
        for arg in args:
            if type(arg) is not bytes:
                break
        else:
            if b" " not in args[0]:
                return [hiredis.pack_command(args)]
        converted: list[Any] = [
            repr(arg).encode() if type(arg) in {int, float} else arg for arg in args
        ]
        return super().pack(*converted)


class _PrivatePoolFactory(ConnectionFactory):  # type: ignore[misc]  # no types
    """Builds a bounded pool of its own for each client: a mix-in for django-redis's factories."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.pool_cls: Any = _bounded_class(self.pool_cls)

    def make_connection_params(self, url: str) -> dict[str, Any]:
        params: dict[str, Any] = super().make_connection_params(url)
        # With RESP3 they are on by default, and make pools hand out connections with unread data.
        params["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
        if not _DRIVER_ARGUMENTS.intersection(self.options.get("CONNECTION_POOL_KWARGS") or {}):
            params["driver_info"] = _DRIVER
        params["command_packer"] = _Packer()
        return params

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        """Build a pool; django-redis would share one between all clients with the same URL."""
        return self.get_connection_pool(params)


@functools.cache
def _private(factory: Any) -> Callable[..., Any]:
    return type(f"Private{factory.__name__}", (_PrivatePoolFactory, factory), {})


def connection_factory(options: dict[str, Any]) -> Any:
    """Return the factory that the options select, made to build pools of its own."""
    name = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", None
    )
    if name:
        factory = import_string(name)
        if not issubclass(factory, ConnectionFactory):
            raise ImproperlyConfigured(
                f"DJANGO_REDIS_CONNECTION_FACTORY is {name!r}; expected the dotted name of "
                "django_redis.pool.ConnectionFactory or a subclass"
            )
    else:
        factory = SentinelConnectionFactory if options.get("SENTINELS") else ConnectionFactory
    options = dict(options)  # Sentinel's factory changes it
    if options.get("SENTINELS"):
        # Otherwise redis-py tries a dead sentinel eleven times, with pauses.
        sentinel_defaults = {
            "socket_timeout": options["SOCKET_TIMEOUT"],
            "socket_connect_timeout": options["SOCKET_CONNECT_TIMEOUT"],
            "retry": Retry(NoBackoff(), 0),
        }
        options["SENTINEL_KWARGS"] = {**sentinel_defaults, **(options.get("SENTINEL_KWARGS") or {})}
    return _private(factory)(options)
