"""Send each command to the node that has its key, and follow the cluster when that changes.

The rule of `cacheapp.backends.redis.executor` holds: a retry never changes an outcome. A command is
sent to another node only if the first one has certainly not run it: it replied with a redirection, or
the command was not sent completely. redis-py's RedisCluster repeats every command whose reply was lost.

Invariant: what follows a redirection, or goes to a successor, begins with nothing that may have run. A node
that redirects a *repetition* has perhaps run the command before the slot moved: that is `OutcomeUnknown`,
and goes nowhere else (`CommandExecutor._retry`).
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    TryAgainError,
)

from cacheapp import clock
from cacheapp.backends.redis.cluster.keys import key_slot
from cacheapp.backends.redis.cluster.node import ELSEWHERE, ClusterNode, Exchange, Lost
from cacheapp.backends.redis.cluster.topology import Topology, host_of
from cacheapp.backends.redis.connection_pool import borrower
from cacheapp.backends.redis.executor import (
    ERROR_REPLIES,
    Executor,
    FailureKind,
    is_of_handler,
    with_text,
)
from cacheapp.errors import CacheappError, OutcomeUnknown, StoreUnavailable

_SCRIPTS = frozenset([b"EVALSHA", b"EVAL"])
_FOLLOWED_AT_ONCE = 3  # redirections; after them, pauses: two nodes may disagree for a moment
_PAUSE_S = 0.02
_HANDED_OVER = (AskError, TryAgainError)
_ROUNDS = 3  # of many commands at once; what is left then is sent one by one

Command = tuple[Any, ...]
_WRITE, _READ = FailureKind.WRITE, FailureKind.READ


SlotCommand = tuple[int, list[bytes], Command]
"""A slot, keys of it, and the command on them. A plain tuple, because there may be a thousand per call."""


class ClusterExecutor(Executor):
    """The executors of all nodes. `patience_s`: how long a command waits for a slot that moves."""

    def __init__(self, topology: Topology, name: str, patience_s: float) -> None:
        self.topology = topology
        self._name = name
        self._patience_s = patience_s

    @property
    def condition(self) -> str:
        """The nodes whose breakers are not closed."""
        down = [str(node) for node in self.topology.known_nodes() if not node.breaker.closed]
        return f"down: {', '.join(down)}" if down else "no node known to be down"

    def close(self) -> None:
        """Close the idle connections to all nodes."""
        self.topology.close()

    # -- one command -----------------------------------------------------------------------------

    def execute(self, *command: Any, kind: FailureKind = _WRITE, also: Command = ()) -> Any:
        """Return the reply of the node that has the command's first key; see `CommandExecutor`."""
        slot = key_slot(command[3] if command[0] in _SCRIPTS else command[1])
        node = self.topology.owner(slot)
        try:
            reply = node.execute(*command, kind=kind)
        except OutcomeUnknown:
            self.topology.refresh(last=node)  # for the next call
            raise
        except (*ELSEWHERE, StoreUnavailable) as exc:
            if is_of_handler(exc):
                raise
            reply = self._follow(slot, node, command, kind, exc)
        return (reply, self.execute(*also, kind=kind)) if also else reply

    def read_pair(self, first: Command, second: Command) -> tuple[Any, ClusterNode | None]:
        """Return the replies to two reads of a key, sent at once; and the owner of the slot if it replied."""
        slot = key_slot(first[1])
        node = self.topology.owner(slot)
        try:
            return node.execute(*first, kind=_READ, also=second), node
        except (*ELSEWHERE, StoreUnavailable) as exc:
            if is_of_handler(exc):
                raise
            reply = self._follow(slot, node, first, _READ, exc)
        return (reply, self.execute(*second, kind=_READ)), None

    def _follow(
        self, slot: int, node: ClusterNode, command: Command, kind: FailureKind, reason: Exception
    ) -> Any:
        """Return the reply of another node, or of the same one later; nothing has run so far."""
        deadline_s = clock.monotonic_s() + self._patience_s
        for tries in itertools.count(1):
            node, asked = self._next(slot, node, reason)
            if tries > _FOLLOWED_AT_ONCE or isinstance(reason, TryAgainError):
                if clock.monotonic_s() > deadline_s:
                    break
                time.sleep(_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
            try:
                if asked is None:
                    return node.execute(*command, kind=kind)
                return asked.execute(b"ASKING", kind=kind, also=command)[1]
            except (*ELSEWHERE, StoreUnavailable) as exc:
                if is_of_handler(exc):
                    raise
                reason = exc
        raise self._unavailable(slot, reason)

    def _next(
        self, slot: int, node: ClusterNode, reason: Exception
    ) -> tuple[ClusterNode, ClusterNode | None]:
        """Return the owner of the slot as of now, and the node to be asked in its place, if any."""
        if isinstance(reason, MovedError):
            return self.topology.moved(slot, host_of(reason.host, node), reason.port), None
        if isinstance(reason, AskError):
            return node, self.topology.node(host_of(reason.host, node), reason.port)
        if isinstance(reason, TryAgainError):
            return self.topology.owner(slot), None
        other = self.topology.another_owner(slot, node)
        if other is None:
            raise self._unavailable(slot, reason)
        return other, None

    def _unavailable(self, slot: int, reason: Exception) -> CacheappError:
        """Return the error for a command that has certainly not run."""
        if isinstance(reason, StoreUnavailable):
            return reason
        if isinstance(reason, TryAgainError):
            return StoreUnavailable(
                f"slot {slot} of {self._name} is being moved, and the keys were not together on one "
                f"node within {self._patience_s:g} s; nothing was changed"
            )
        return StoreUnavailable(
            f"slot {slot} of {self._name} is not served now ({reason}); nothing was changed"
        )

    # -- many commands ---------------------------------------------------------------------------

    def execute_by_slot(
        self,
        keys: Sequence[bytes],
        build: Callable[[list[bytes]], Command],
        kind: FailureKind = _WRITE,
        *,
        partial: bool = False,
    ) -> Iterator[tuple[list[bytes], Any]]:
        """Yield the keys of each slot, and the reply to the command that `build` returns for them.

        The nodes work at the same time: all commands are sent before the first reply is read. While a
        slot moves, its keys may be taken one by one. If only a part of the commands was executed, a
        write raises `OutcomeUnknown`. `partial`: nothing is raised and yielded for what failed.
        """
        self.topology.load()
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            slot = key_slot(key)
            if slot in by_slot:
                by_slot[slot].append(key)
            else:
                by_slot[slot] = [key]
        commands = [(slot, found, build(found)) for slot, found in by_slot.items()]
        done: list[tuple[list[bytes], Any]] = []
        failures: list[CacheappError] = []
        moving: list[SlotCommand] = []
        for _ in range(_ROUNDS):
            if commands:
                commands = self._round(commands, kind, done, failures, moving)
        for _, found, _ in (*commands, *moving):
            self._one_by_one(found, build, kind, done, failures)
        if failures and not partial:
            raise _summary(failures, done, len(keys), kind)
        yield from done

    def _round(
        self,
        commands: list[SlotCommand],
        kind: FailureKind,
        done: list[tuple[list[bytes], Any]],
        failures: list[CacheappError],
        moving: list[SlotCommand],
    ) -> list[SlotCommand]:
        """Execute the commands in one round trip to each node; return those to be sent again.

        Those of slots that are being handed over go to `moving`.
        """
        received = self._exchange(commands, failures)
        # From here on no connection is held: what follows may need one.
        again: list[SlotCommand] = []
        for node, own, replies in received:
            for command, reply in zip(own, replies, strict=True):
                if not isinstance(reply, Exception):
                    done.append((command[1], reply))
                elif isinstance(reply, NoScriptError):
                    again.append((*command[:2], with_text(command[2])))
                elif isinstance(reply, _HANDED_OVER) and not isinstance(reply, MovedError):
                    moving.append(command)
                elif self._is_sent_again(node, command[0], reply, kind):
                    again.append(command)
                else:
                    failures.append(self._error_of(node, command[0], reply, kind))
        return again

    @borrower
    def _exchange(
        self, commands: list[SlotCommand], failures: list[CacheappError]
    ) -> list[tuple[ClusterNode, list[SlotCommand], list[Any]]]:
        """Send all commands, then read all replies; return those of each node with its replies."""
        received: list[tuple[ClusterNode, list[SlotCommand], list[Any]]] = []
        with ExitStack() as stack:
            sent = []
            for node, own in self._by_node(commands, failures):
                exchange = Exchange([command for _, _, command in own])
                stack.callback(node.abandon, exchange)
                sent.append((node, own, exchange, node.send(exchange)))
            for node, own, exchange, failure in sent:
                replies = [failure] * len(own) if failure else node.receive(exchange)
                received.append((node, own, replies))
        return received

    def _by_node(
        self, commands: list[SlotCommand], failures: list[CacheappError]
    ) -> list[tuple[ClusterNode, list[SlotCommand]]]:
        """Return those of each node, in one order: threads that take connections never deadlock."""
        found: dict[ClusterNode, list[SlotCommand]] = {}
        owner = self.topology.owner
        for command in commands:
            try:
                node = owner(command[0])
            except CacheappError as exc:
                if is_of_handler(exc):
                    raise
                failures.append(exc)
                continue
            if node in found:
                found[node].append(command)
            else:
                found[node] = [command]
        return sorted(found.items(), key=lambda item: (item[0].host, item[0].port))

    def _is_sent_again(
        self, node: ClusterNode, slot: int, reply: Exception, kind: FailureKind
    ) -> bool:
        """Return True if a command without a reply may be sent again, perhaps elsewhere."""
        if isinstance(reply, MovedError):
            self.topology.moved(slot, host_of(reply.host, node), reply.port)
            return True
        if not isinstance(reply, Lost | StoreUnavailable | ClusterDownError):
            return False
        other = self.topology.another_owner(slot, node)
        if isinstance(reply, Lost) and kind is not _READ:
            return False
        timed_out = isinstance(reply.__cause__, redis.TimeoutError)  # once is long enough
        return other is not None or (isinstance(reply, Lost) and not timed_out)

    def _error_of(
        self, node: ClusterNode, slot: int, reply: Exception, kind: FailureKind
    ) -> CacheappError:
        """Return the error of a command that is not sent again."""
        if isinstance(reply, Lost):
            if kind is _READ:
                return StoreUnavailable(str(reply))
            return OutcomeUnknown(f"{reply}: they may have been executed; they were not repeated")
        if isinstance(reply, StoreUnavailable | ClusterDownError):
            return self._unavailable(slot, reply)
        if isinstance(reply, ERROR_REPLIES):
            return StoreUnavailable(f"{node!r} refused the command: {reply}; nothing was changed")
        found = node.translated(reply)
        assert isinstance(found, CacheappError)  # noqa: S101 (for the type checker)
        return found

    def _one_by_one(
        self,
        keys: list[bytes],
        build: Callable[[list[bytes]], Command],
        kind: FailureKind,
        done: list[tuple[list[bytes], Any]],
        failures: list[CacheappError],
    ) -> None:
        """Execute key by key, until one fails: those of a slot that moves may be on two nodes."""
        for key in keys:
            command = build([key])
            try:
                try:
                    reply = self.execute(*command, kind=kind)
                except NoScriptError:
                    reply = self.execute(*with_text(command), kind=kind)
                done.append(([key], reply))
            except CacheappError as exc:
                if is_of_handler(exc):
                    raise
                failures.append(exc)
                return  # each of the others may wait as long


def _summary(
    failures: list[CacheappError],
    done: list[tuple[list[bytes], Any]],
    keys: int,
    kind: FailureKind,
) -> CacheappError:
    """Return the one error that says what is known about all keys."""
    unknown = [exc for exc in failures if isinstance(exc, OutcomeUnknown)]
    if kind is _READ or (not unknown and not done):
        return failures[0]
    served = sum(len(found) for found, _ in done)
    first = (unknown or failures)[0]
    return OutcomeUnknown(f"{served} of {keys} keys were written, for the others: {first}")
