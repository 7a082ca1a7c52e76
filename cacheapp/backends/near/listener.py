"""Apply Redis's invalidations to this machine's copy: one thread of one process per copy.

Redis sends the names of changed keys to a connection that has `CLIENT TRACKING ON BCAST`. The
listener removes them from the copy, and confirms at intervals until when the copy may be served:

- It begins a new epoch after tracking is on, on every connection. So an entry of this epoch was
  fetched while Redis was already sending what changes.
- It sends PING at intervals. Redis sends the invalidations of one turn of its event loop after the
  replies of that turn, possibly, but before those of the next. So when the reply to a PING arrives
  that was sent after the previous reply, everything that changed before the *previous* PING was sent
  has arrived, and been applied. From then on the copy may be served until `max_staleness` seconds
  after that moment. Nothing in this depends on how Redis orders its output within a turn, nor on its
  `io-threads`.
- Each change is made in a transaction that first checks that this listener is still the owner. One
  that was stopped for long, and replaced by another process, changes nothing and ends.

The owner is elected by the state in the copy, without a lock: a reader that finds `claimed_until` in
the past may claim it. A kill needs no cleanup, and a stopped process blocks no other.
"""

import atexit
import contextlib
import logging
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import redis

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.records import NotOwner, State
from cacheapp.backends.redis.connection_pool import connect, is_socket_intact
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)
_unsupported = LogThrottle()
_PINGS = 5  # in `max_staleness`
_CLAIM_S = 10.0  # longer than it takes to connect, or to fail
_RETRY_S = 0.5  # after a connection was lost or refused
_UNSUPPORTED_S = 60.0  # after the server refused to track
_IDLE_S = 60.0  # without a read on this machine: then the connection is not needed
_END_WITHIN_S = 2.0
_GATHER_S = 0.002  # more invalidations in one transaction, and fewer turns of this thread
_BATCH = 10_000  # invalidated keys in one transaction


class InvalidationListener:
    """Becomes the listener of its copy when there is none. `ensure` costs nothing while there is one.

    The claim in the copy elects one thread of one process, so `ensure` needs no lock, and may run in
    a signal handler. `_owner` is the token of the current claim: a thread ends when its own is not
    there any more. `_turn` is held by the thread that works: a late one waits for its predecessor.
    """

    def __init__(
        self,
        pool: Any,
        copy: LocalCopy,
        prefix: bytes,
        name: str,
        count: Callable[[int], None],
        reads: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._copy = copy
        self._prefix = prefix
        self._name = name
        self._count = count
        self._reads = reads
        self._interval_s = copy.max_staleness / _PINGS
        self._turn = threading.Lock()
        self._connection: Any = None
        self._owner: bytes | None = None
        self._thread: threading.Thread | None = None
        atexit.register(_stop, weakref.ref(self))

    def ensure(self, state: State, now: float) -> None:
        """Start to listen if no process of this machine does. Readers call it."""
        if now < state.claimed_until or self._thread is not None:
            return
        owner, started = self._copy.claim(_CLAIM_S), False
        if owner is None:
            return
        try:
            self._owner = owner
            started = helper_thread.start("cacheapp-near", self._run, owner)
        finally:
            if not started:  # if a handler raised while it was, the thread ends at once
                self._owner = None
                self._copy.release(owner, _RETRY_S)

    def stop(self) -> None:
        """End the thread soon. It lets another process become the listener at once.

        The thread itself makes this last change of the copy. A process that is stopped in a write to
        the copy delays it; it does not delay the caller, which may be the end of this process.
        """
        self._owner = None
        connection, thread = self._connection, self._thread
        if connection is not None and connection._sock is not None:  # noqa: SLF001
            with contextlib.suppress(OSError, AttributeError):  # the thread closes it just now
                if is_socket_intact(connection):
                    connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001 (wakes the thread)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_WITHIN_S)

    def refusal(self) -> str:
        """Return why Redis does not track keys for this user; empty if it does, or is down."""
        connection = _connection(self._pool)
        try:
            _track(connection, self._prefix, [])
        except redis.ResponseError as exc:
            return str(exc)
        except (redis.RedisError, OSError):
            pass
        finally:
            connection.disconnect()
        return ""

    def close_in_child(self) -> None:
        """Close what a forked child inherited, without sending anything."""
        self._close_connection()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self, owner: bytes) -> None:
        with self._turn:
            self._thread = threading.current_thread()
            retry_in_s = 0.0
            try:
                if self._owner == owner:
                    retry_in_s = self._listen(owner)
            finally:
                if self._owner == owner:
                    self._owner = None
                self._copy.release(owner, retry_in_s)
                self._thread = None

    def _listen(self, owner: bytes) -> float:
        """Follow one connection to its end; return after how many seconds another may be made."""
        retry_in_s = 0.0
        try:
            self._track()
            self._follow(owner)
        except NotOwner:
            pass
        except redis.ResponseError as exc:
            retry_in_s = _UNSUPPORTED_S
            if _unsupported.due() is not None:
                logger.warning(
                    "%s does not track keys for this connection (%s); every read goes to Redis",
                    self._name,
                    exc,
                    extra={"event": "near_tracking_refused"},
                )
        except (redis.RedisError, OSError, CacheappError) as exc:
            retry_in_s = _RETRY_S
            if self._owner == owner:
                logger.info(
                    "%s: the connection for invalidations ended (%s); the copy is not served until "
                    "another one is made",
                    self._name,
                    exc,
                    extra={"event": "near_listener_ended"},
                )
        except Exception:
            retry_in_s = _RETRY_S
            logger.exception("%s: the listener for invalidations failed", self._name)
        finally:
            self._close_connection()
        return retry_in_s if self._owner == owner else 0.0

    def _close_connection(self) -> None:
        """Close the socket, unless other code has closed it: its number may be of another file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection._sock is not None and not is_socket_intact(connection):  # noqa: SLF001
                connection._sock.detach()  # noqa: SLF001
            connection.disconnect()

    def _track(self) -> None:
        """Connect, and have Redis send the names of keys that change."""
        self._messages: list[Any] = []
        self._connection = _connection(self._pool)
        _track(self._connection, self._prefix, self._messages)

    def _follow(self, owner: bytes) -> None:
        """Apply and confirm until the connection ends, another process is the owner, or nothing reads."""
        if self._owner != owner:
            return
        self._copy.begin_epoch(owner)
        previous_sent_s = None
        idle_at_s, reads = clock.boot_s() + _IDLE_S, self._reads()
        while self._owner == owner:
            if clock.boot_s() > idle_at_s:
                before, reads = reads, self._reads()
                if reads == before:
                    return
                idle_at_s = clock.boot_s() + _IDLE_S
            sent_s = self._ping(owner, previous_sent_s)
            if previous_sent_s is not None:
                self._apply_until(owner, sent_s + self._interval_s)
            previous_sent_s = sent_s

    def _ping(self, owner: bytes, previous_sent_s: float | None) -> float:
        """Send PING, and after its reply confirm from the previous one on; return when it was sent."""
        connection = self._connection
        self._check_socket()
        sent_s = clock.boot_s()
        connection.send_command(b"PING", check_health=False)
        _read_reply(connection, self._messages)
        confirmed = None
        if previous_sent_s is not None:
            until = previous_sent_s + self._copy.max_staleness
            confirmed = until, clock.boot_s() - sent_s
        self._apply(owner, confirmed)
        return sent_s

    def _apply_until(self, owner: bytes, deadline_s: float) -> None:
        """Apply invalidations as they arrive."""
        while (left_s := deadline_s - clock.boot_s()) > 0 and self._owner == owner:
            if not self._is_readable() and not self._wait(left_s):
                continue
            time.sleep(_GATHER_S)
            while len(self._messages) < _BATCH and self._is_readable():
                self._connection.read_response(disable_decoding=True, push_request=True)
                self._messages += self._complete_messages()
            self._apply(owner, None)

    def _complete_messages(self) -> list[Any]:
        """Return what hiredis has read already, at a tenth of the cost of `read_response`."""
        reader = getattr(self._connection._parser, "_reader", None)  # noqa: SLF001
        if reader is None:  # another parser
            return []
        found = []
        while isinstance(message := reader.gets(False), list):  # noqa: FBT003 (not decoded)
            found.append(message)
        return [message for message in found if message[0] == b"invalidate"]

    def _is_readable(self) -> bool:
        self._check_socket()
        return bool(self._connection.can_read(0))

    def _wait(self, within_s: float) -> bool:
        """Wait until something arrives, without reading it: the descriptor may be of another file then."""
        poll = select.poll()
        poll.register(self._connection._sock.fileno(), select.POLLIN)  # noqa: SLF001
        return bool(poll.poll(within_s * 1000))

    def _check_socket(self) -> None:
        if not is_socket_intact(self._connection):
            raise redis.ConnectionError("other code has closed the descriptors")

    def _apply(self, owner: bytes, confirmed: tuple[float, float] | None) -> None:
        messages = self._messages[:]
        del self._messages[: len(messages)]
        keys = [key for message in messages for key in message[1] or ()]
        flushed = any(message[1] is None for message in messages)
        self._count(self._copy.apply(owner, keys, flushed=flushed, confirmed=confirmed))


def _connection(pool: Any) -> Any:
    """Return a connection of its own, not connected yet, that speaks RESP3."""
    return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})


def _track(connection: Any, prefix: bytes, messages: list[Any]) -> None:
    """Connect, and have Redis send the names of keys that change; they are added to `messages`."""
    connect(connection)
    connection._parser.set_invalidation_push_handler(messages.append)  # noqa: SLF001
    words = (b"PREFIX", prefix) if prefix else ()
    connection.send_command(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *words, check_health=False)
    _read_reply(connection, messages)


def _read_reply(connection: Any, messages: list[Any]) -> None:
    """Read until the reply to the last command; keep the invalidations that come before it."""
    while True:
        before = len(messages)
        reply = connection.read_response(disable_decoding=True, push_request=True)
        if reply is not None and len(messages) == before:
            return


def _stop(listener: "weakref.ref[InvalidationListener]") -> None:
    """At the end of the process, let another one become the listener at once."""
    if found := listener():
        found.stop()
