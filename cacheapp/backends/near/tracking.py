"""Connections on which servers send the names of keys that change, and what is asked of the servers.

`CLIENT TRACKING ON BCAST` with RESP3: the names arrive on the same connection as the replies, so a
reply shows which of them have arrived. The listener follows the servers of one `Tracked`.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import redis

from cacheapp.backends.redis.connection_advice import on_connection
from cacheapp.backends.redis.connection_pool import connect, is_socket_intact, outside_of

Messages = list[Any]
Command = tuple[bytes, ...]


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Append the name to the message of an error of redis-py."""
    try:
        yield
    except redis.RedisError as exc:
        if name:
            exc.args = (f"{exc} ({name})",)
        raise


class TrackingConnection:
    """One connection to one server. What the server sends by itself is added to `messages`.

    `name`: which of several servers it is, for the messages of errors.
    """

    def __init__(self, pool: Any, messages: Messages, name: str = "") -> None:
        self._pool = pool
        self._connection = outside_of(pool, protocol=3)
        self._messages = messages
        self._name = name

    def connect(self) -> None:
        """Connect."""
        try:
            with naming(self._name):
                connect(self._connection)
        except redis.RedisError as exc:
            exc.args = (f"{exc}{on_connection(exc, self._pool)}",)
            raise
        self._connection._parser.set_invalidation_push_handler(self._messages.append)  # noqa: SLF001

    def track(self, prefix: bytes) -> None:
        """Have the server send the names of keys that change and begin with the prefix."""
        words = (b"PREFIX", prefix) if prefix else ()
        self.send((b"CLIENT", b"TRACKING", b"ON", b"BCAST", *words))
        self.read_reply()

    def send(self, *commands: Command) -> None:
        """Send commands, whose replies must be read."""
        for command in commands:
            self._connection.send_command(*command, check_health=False)

    def read_reply(self) -> Any:
        """Return the next reply; keep the messages that come before it."""
        while True:
            before = len(self._messages)
            with naming(self._name):
                reply = self._connection.read_response(disable_decoding=True, push_request=True)
            if reply is not None and len(self._messages) == before:
                return reply

    def is_readable(self) -> bool:
        """Return True if messages have arrived, or the end of the connection."""
        return bool(self._connection.can_read(0))

    def read_messages(self) -> None:
        """Read a message, and all that have arrived with it. While no reply is due."""
        self._connection.read_response(disable_decoding=True, push_request=True)
        self._messages += self._complete_messages()

    def _complete_messages(self) -> Messages:
        """Return what hiredis has read already, at a tenth of the cost of `read_response`."""
        reader = getattr(self._connection._parser, "_reader", None)  # noqa: SLF001
        if reader is None:  # another parser
            return []
        found = []
        while isinstance(message := reader.gets(False), list):  # noqa: FBT003 (not decoded)
            found.append(message)
        return [message for message in found if message[0] == b"invalidate"]

    def fileno(self) -> int:
        """Return the descriptor, to wait for it: what a connection reads, it keeps."""
        return int(self._connection._sock.fileno())  # noqa: SLF001

    def check_socket(self) -> None:
        """Raise if the descriptor may be of another file now."""
        if not is_socket_intact(self._connection):
            raise redis.ConnectionError("other code has closed the descriptors")

    def wake(self) -> None:
        """End the connection from another thread; the one that uses it finds that, and closes it."""
        connection = self._connection
        if connection._sock is not None:  # noqa: SLF001
            with contextlib.suppress(OSError, AttributeError):  # the thread closes it just now
                if is_socket_intact(connection):
                    connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001

    def close(self) -> None:
        """Close the socket, unless other code has closed it: its number may be of another file."""
        connection = self._connection
        if connection._sock is not None and not is_socket_intact(connection):  # noqa: SLF001
            connection._sock.detach()  # noqa: SLF001
        connection.disconnect()


class Tracked(Protocol):
    """The servers whose changes a copy follows."""

    questions: Sequence[Command]
    """What the listener sends to each of them at intervals, in place of a PING."""

    def connect(
        self, connections: list[TrackingConnection], messages: Messages, renew: Callable[[], None]
    ) -> None:
        """Connect to all of them, and have them track keys; add each connection before it is made.

        `renew` is called before each step: what one server may delay, by its time-outs. It raises if another
        process has become the listener.
        """

    def check(self, replies: Sequence[Sequence[Any]]) -> None:
        """Raise `ServersChanged` unless each has replied to the questions as when the epoch began."""

    def owners(self) -> bytes:
        """Return which of them has which keys, for `LocalCopy.begin_epoch`; empty if there is one."""


class ServersChanged(Exception):
    """The servers are not those of the epoch, or do not agree: nothing is confirmed."""


def is_refusal(error: BaseException | None) -> bool:
    """Return True if a server does not track keys for this user; one that is busy with a script may."""
    return isinstance(error, redis.ResponseError) and not str(error).startswith("BUSY ")


class TrackedServer:
    """One server, or the primary that Sentinel names."""

    questions: Sequence[Command] = ((b"PING",),)

    def __init__(self, pool: Any, prefix: bytes) -> None:
        self._pool = pool
        self._prefix = prefix

    def connect(
        self, connections: list[TrackingConnection], messages: Messages, renew: Callable[[], None]
    ) -> None:
        """Connect, and have the server track keys."""
        renew()
        connections.append(TrackingConnection(self._pool, messages))
        connections[0].connect()
        connections[0].track(self._prefix)

    def check(self, replies: Sequence[Sequence[Any]]) -> None:
        """Accept any reply: another server has another connection, and that another epoch."""

    def owners(self) -> bytes:
        """Return nothing: the one server has all keys."""
        return b""
