"""One node of a cluster: a server whose replies may name another node, and that takes many commands at once."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ResponseError,
    TryAgainError,
)

from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.executor import (
    CONNECTION_ERRORS,
    ERROR_REPLIES,
    AttemptFailed,
    CommandExecutor,
    is_of_handler,
    raise_interruption,
)
from cacheapp.errors import StoreUnavailable

ELSEWHERE = (AskError, MovedError, TryAgainError, ClusterDownError)
"""Replies to a command that this node has not run, and that may run at another node or later."""


class Lost(Exception):
    """The place of a reply that was lost; the command may have run."""


@dataclasses.dataclass
class Exchange:
    """Commands that are sent to a node at once; it has a connection until all their replies are read.

    It is made before it gets the connection, so that whoever made it can `abandon` it at any time.
    """

    commands: Sequence[tuple[Any, ...]]
    connection: Any = None


class ClusterNode(CommandExecutor):
    """The executor of one node, with its own connections and breaker."""

    def __init__(self, pool: Any, breaker: CircuitBreaker, host: str, port: int) -> None:
        super().__init__(pool, breaker, f"the cluster node {host}:{port}")
        self.host = host
        self.port = port
        self.id = b""  # until the slots were asked for

    def __repr__(self) -> str:
        return f"<ClusterNode {self.host}:{self.port}, {self.condition}>"

    def forget(self) -> None:
        """Close the idle connections, and report no failure any more: the node is not used now."""
        self.close()
        self.breaker.retire()

    def _translated(self, exc: ResponseError) -> Exception:
        """Leave the replies that the cluster acts on as they are."""
        return exc if isinstance(exc, ELSEWHERE) else super()._translated(exc)

    def translated(self, exc: Exception) -> Exception:
        """Return the exception for an error in place of a reply."""
        return self._translated(exc) if isinstance(exc, ResponseError) else exc

    # -- many commands in one round trip ---------------------------------------------------------

    def send(self, exchange: Exchange) -> Exception | None:
        """Send the commands; return what went wrong, or `None`, and then `receive`; `abandon` it at last.

        `StoreUnavailable`: none of them has run. `Lost`: some may have.
        """
        handled_before = sys.exception()
        try:
            if not self.breaker.closed:
                self._probe_or_raise()
            exchange.connection = self._connection(probing=False)
        except AttemptFailed as exc:
            return StoreUnavailable(f"nothing was sent to {self._name}: it failed ({exc})")
        except StoreUnavailable as exc:
            if is_of_handler(exc):
                raise
            return exc
        connection = exchange.connection
        try:
            if connection.health_check_interval:
                connection.check_health()
            # All arguments are bytes.
            packed = b"".join(map(hiredis.pack_command, exchange.commands))
            connection.send_packed_command([packed], check_health=False)
        except BaseException as exc:  # noqa: BLE001 (`_lose` raises it again)
            return self._lose(exchange, exc, handled_before, 0)
        return None

    def receive(self, exchange: Exchange) -> list[Any]:
        """Return the replies; the place of each has an error reply, or `Lost`."""
        handled_before = sys.exception()
        replies: list[Any] = []
        connection = exchange.connection
        try:
            _receive(connection, len(exchange.commands), replies, handled_before)
        except BaseException as exc:  # noqa: BLE001 (`_lose` raises it again)
            lost = self._lose(exchange, exc, handled_before, len(replies))
            return [*replies, *[lost] * (len(exchange.commands) - len(replies))]
        self._end(exchange)
        if self.breaker.has_failures:
            self.breaker.record_success()
        return replies

    def _lose(
        self,
        exchange: Exchange,
        exc: BaseException,
        handled_before: BaseException | None,
        received: int,
    ) -> Lost:
        """Disconnect; return what takes the place of the other replies, or raise what is no failure."""
        self.abandon(exchange)
        raise_interruption(exc, handled_before)
        if not isinstance(exc, CONNECTION_ERRORS):
            raise exc
        failure = self._failed(exc, may_have_run=True)
        found = Lost(
            f"{self._name} failed after {received} replies to {len(exchange.commands)} commands "
            f"({failure})"
        )
        found.__cause__ = exc
        return found

    def abandon(self, exchange: Exchange) -> None:
        """Disconnect, so that nothing reads the replies; without effect after `receive`."""
        if exchange.connection is not None:
            exchange.connection.disconnect()
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        connection, exchange.connection = exchange.connection, None
        self.pool.release(connection)


def _receive(
    connection: Any, count: int, replies: list[Any], handled_before: BaseException | None
) -> None:
    """Append replies, errors too, until there are `count`."""
    while len(replies) < count:
        try:
            replies.append(connection.read_response(disable_decoding=True))
        except (ResponseError, *ERROR_REPLIES) as exc:
            raise_interruption(exc, handled_before)
            replies.append(exc)
        replies += _received(connection, count - len(replies))


def _received(connection: Any, most: int) -> Iterator[Any]:
    """Yield the replies that have arrived with an earlier one, errors too.

    `read_response` takes several times as long for each. It is used where it may have to wait.
    """
    reader = getattr(connection._parser, "_reader", None)  # noqa: SLF001
    if isinstance(reader, hiredis.Reader):
        for _ in range(most):
            reply = reader.gets(False)  # noqa: FBT003 (bytes are not decoded)
            if reply is NOT_ENOUGH_DATA:
                return
            yield reply
