"""Connections to Redis: one pool per process and store, which waits for a free one, briefly.

django-redis's factories build it from its own OPTIONS, with three things put right: the pool is
not shared with whoever has the same URL, it blocks with a deadline, and no connection leaves it
that is known to be stale or may hold an answer meant for somebody else.
"""

import contextlib
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import redis
from django.conf import settings
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory, SentinelConnectionFactory
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.driver_info import DriverInfo
from redis.exceptions import MaxConnectionsError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from cacheapp import clock

# Found out once. redis-py would read its package's metadata for each connection, and import what
# that needs: a fork meanwhile leaves the child waiting for the import for ever.
_DRIVER = DriverInfo()
_NAMED_BY_USER = frozenset({"driver_info", "lib_name", "lib_version"})


class _Waiter:
    """A caller who waits for a connection."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.thread = threading.get_ident()
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()


class BoundedConnectionPool(ConnectionPool):
    """A pool of at most `max_connections`, which makes the next caller wait `pool_timeout` seconds.

    Invariants: whoever has a connection has it in `_in_use_connections`, and these are what is
    counted; who waits is in `_waiting`, in order, and nobody overtakes: a thread that gives back
    its connection would else take it again before those that wait have woken up, for ever.
    All three collections are guarded by redis-py's `_lock`. That is reentrant, and so is
    `SimpleQueue`, unlike a semaphore: a signal handler may use the cache while its thread takes a
    connection or gives it back.
    """

    def __init__(self, *, pool_timeout: float, max_connections: int, **kwargs: Any) -> None:
        self._pool_timeout_s = pool_timeout
        self._waiting: deque[_Waiter] = deque()
        super().__init__(max_connections=max_connections, **kwargs)

    def get_connection(self, *_args: Any, **_options: Any) -> Any:
        """Return a connection that is up and has nothing to read; `release` it afterwards.

        Whatever it raises, nothing of the caller's was sent. `MaxConnectionsError`: none came
        free in time.
        """
        self._checkpid()  # for clients that somebody kept across a fork: ours are replaced there
        connection = self._taken(None)
        if connection is None:
            connection = self._awaited()
        try:
            _make_ready(connection)
        except BaseException:
            # Sentinel's connections stay up when they are interrupted in their handshake,
            # whose answer would be the next caller's.
            connection.disconnect()
            self.release(connection)
            raise
        return connection

    def _taken(self, waiter: _Waiter | None) -> Any:
        """Take a connection, perhaps a new one that is not up yet; `None` if it must be waited for."""
        with self._lock:
            while self._waiting and self._waiting[0].deadline_s < clock.monotonic_s():
                self._waiting.popleft()  # its thread was interrupted as it left
            if self._waiting and self._waiting[0] is not waiter:
                return None
            busy, idle = self._in_use_connections, self._available_connections
            if len(busy) >= self.max_connections:
                return None
            # Not redis-py's own count, which an interruption leaves too high for ever.
            self._created_connections = len(busy) + len(idle)
            connection: Any = idle.pop() if idle else self.make_connection()
            busy.add(connection)
            return connection

    def _awaited(self) -> Any:
        """Wait for a connection until it is this caller's turn."""
        waiter = _Waiter(clock.monotonic_s() + self._pool_timeout_s)
        try:
            with self._lock:
                self._waiting.insert(self._place(waiter), waiter)
            while (left_s := waiter.deadline_s - clock.monotonic_s()) > 0:
                if (connection := self._taken(waiter)) is not None:
                    return connection
                with contextlib.suppress(queue.Empty):
                    waiter.woken.get(timeout=left_s)
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            self._wake_next()
        raise MaxConnectionsError(
            f"all {self.max_connections} connections (OPTIONS['max_connections']) were busy "
            f"for {self._pool_timeout_s:g} s (OPTIONS['pool_timeout'])"
        )

    def _place(self, waiter: _Waiter) -> int:
        """Return where to wait: at the end, or before a wait that a signal handler interrupts."""
        threads = [other.thread for other in self._waiting]
        return threads.index(waiter.thread) if waiter.thread in threads else len(threads)

    def _wake_next(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.put(None)

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        super().release(connection)
        if self._waiting:
            self._wake_next()


def _make_ready(connection: Any) -> None:
    """Connect, anew where the server has closed it meanwhile or sent what nobody asked for."""
    if connection.is_connected:
        try:
            if not connection.can_read():
                return
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            pass
        connection.disconnect()
    connection.connect()


@functools.cache
def _bounded(pool_class: Any) -> Any:
    if pool_class is BlockingConnectionPool:
        pool_class = ConnectionPool  # what it adds is what `BoundedConnectionPool` does
    if issubclass(pool_class, BoundedConnectionPool):
        return pool_class
    return type(
        f"BoundedConnectionPool{pool_class.__name__}", (BoundedConnectionPool, pool_class), {}
    )


class _OwnPool:
    """Mix-in for django-redis's factories: pools of ours, never shared by URL alone."""

    pool_cls: Any
    options: dict[str, Any]

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)  # type: ignore[call-arg]
        self.pool_cls = _bounded(self.pool_cls)

    def make_connection_params(self, url: str) -> dict[str, Any]:
        params: dict[str, Any] = super().make_connection_params(url)  # type: ignore[misc]
        # On by default with RESP3, they let pools hand out connections with unread data.
        params["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
        if not _NAMED_BY_USER.intersection(self.options.get("CONNECTION_POOL_KWARGS") or {}):
            params["driver_info"] = _DRIVER
        return params

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        """Build a pool: whoever asked keeps it."""
        return self.get_connection_pool(params)  # type: ignore[attr-defined]


@functools.cache
def _own(factory: Any) -> Callable[..., Any]:
    return type(f"Own{factory.__name__}", (_OwnPool, factory), {})


def connection_factory(options: dict[str, Any]) -> Any:
    """Return a factory like the one that the options ask for, but with pools of ours."""
    name = options.get("CONNECTION_FACTORY") or getattr(
        settings, "DJANGO_REDIS_CONNECTION_FACTORY", None
    )
    if name:
        factory = import_string(name)
    else:
        factory = SentinelConnectionFactory if options.get("SENTINELS") else ConnectionFactory
    options = dict(options)  # Sentinel's factory writes to it
    if options.get("SENTINELS"):
        # Without this, redis-py asks a dead sentinel eleven times, with pauses.
        asking = {
            "socket_timeout": options["SOCKET_TIMEOUT"],
            "socket_connect_timeout": options["SOCKET_CONNECT_TIMEOUT"],
            "retry": Retry(NoBackoff(), 0),
        }
        options["SENTINEL_KWARGS"] = {**asking, **(options.get("SENTINEL_KWARGS") or {})}
    return _own(factory)(options)
