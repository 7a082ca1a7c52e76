"""A private Redis Cluster on loopback: three primaries with a replica each, and what can befall it.

Its nodes meet over TCP, where other users of the machine can connect too. So clients need a random
password. The bus, by which the nodes know of each other, has none: Redis authenticates it only by TLS.
"""

import contextlib
import secrets
import signal
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from cacheapp.processes.ports import free_port
from cacheapp.processes.servers import RedisServer, ServerFailed
from cacheapp.processes.waiting import until

_SLOTS = 16384
_PRIMARIES = 3
_WITHIN_S = 60.0
_HANDOVER_S = 6.0
_TRIES = 3  # another program may have taken a port


class ClusterServer(RedisServer):
    """One node; `number` counts from 0, the primaries first."""

    host = "127.0.0.1"

    def __init__(
        self, number: int, node_timeout_ms: int, options: Sequence[str], password: str
    ) -> None:
        self.number = number
        self.port, self._bus_port = free_port(), free_port()
        super().__init__(
            [
                *("--port", str(self.port), "--bind", self.host),
                *("--cluster-enabled", "yes", "--cluster-port", str(self._bus_port)),
                *("--cluster-config-file", "nodes.conf", "--shutdown-timeout", "0"),
                *(
                    "--cluster-node-timeout",
                    str(node_timeout_ms),
                    "--repl-diskless-sync-delay",
                    "0",
                ),
                *("--cluster-allow-replica-migration", "no"),  # a replica stays with its primary
                *options,
            ],
            password=password,
        )
        self.url = f"redis://:{password}@{self.host}:{self.port}/0"

    def command(self, *words: Any) -> Any:
        """Return the reply to a command, as bytes."""
        with self.client() as client:
            return client.execute_command(*words)

    def cluster(self, *words: Any) -> Any:
        """Return the reply to a CLUSTER command."""
        return self.command("CLUSTER", *words)

    @property
    def id(self) -> str:
        """The id by which the nodes know it."""
        return str(self.cluster("MYID").decode())

    def is_primary(self) -> bool:
        """Return True if it considers itself a primary."""
        return bool(self.command("ROLE")[0] == b"master")

    def meet(self, other: "ClusterServer") -> None:
        """Introduce another node."""
        self.cluster("MEET", other.host, other.port, other._bus_port)  # noqa: SLF001

    def knows(self, count: int) -> bool:
        """Return True if it takes the cluster for complete, with so many nodes."""
        info = self.cluster("INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % count in info

    def names(self, primary: "ClusterServer") -> bool:
        """Return True if it takes the other node for a primary with slots."""
        return bool(self.slots_of(primary.id))

    def slots_of(self, node_id: str) -> set[tuple[int, int]]:
        """Return the ranges of slots that the node with the id has, as far as this one knows."""
        # By id: the port is 0 for a client of the Unix socket of a node that speaks only TLS.
        found = self.cluster("SLOTS")
        return {(first, last) for first, last, owner, *_ in found if owner[2].decode() == node_id}

    def follows(self) -> bool:
        """Return True if it is a replica that has all of its primary's entries."""
        role = self.command("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")


class PrivateCluster:
    """Six servers, or three without replicas, that end with this program.

    `node_timeout_ms`: how long a node must be silent before its replica replaces it.
    """

    def __init__(
        self,
        node_timeout_ms: int = 60_000,
        options: Sequence[str] = (),
        *,
        has_replicas: bool = True,
    ) -> None:
        self._node_timeout_ms = node_timeout_ms
        self._count = 2 * _PRIMARIES if has_replicas else _PRIMARIES
        self._options = options
        self._password = secrets.token_urlsafe(16)
        self.nodes: list[ClusterServer] = []
        self._votes = True  # until a handover was abandoned

    @property
    def url(self) -> str:
        """The LOCATION of the cluster, with its password."""
        return self.url_at("127.0.0.1")

    def url_at(self, host: str) -> str:
        """Return the LOCATION for clients that reach the nodes' ports at another address."""
        addresses = ",".join(f"{host}:{node.port}" for node in self.nodes[:_PRIMARIES])
        return f"redis+cluster://:{self._password}@{addresses}"

    @property
    def addresses(self) -> str:
        """The nodes that `url` names."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:_PRIMARIES])

    def start(self) -> Self:
        """Start the servers and join them; return when the cluster serves all slots."""
        for tries in range(1, _TRIES + 1):
            try:
                self._start_nodes()
                break
            except ServerFailed:
                self.stop()
                if tries == _TRIES:
                    raise
        try:
            self._join()
        except BaseException:
            self.stop()
            raise
        return self

    def _start_nodes(self) -> None:
        for number in range(self._count):
            self.nodes.append(self._new_node(number))
            self.nodes[-1].start()

    def _new_node(self, number: int) -> ClusterServer:
        return ClusterServer(number, self._node_timeout_ms, self._options, self._password)

    def _join(self) -> None:
        primaries, replicas = self.nodes[:_PRIMARIES], self.nodes[_PRIMARIES:]
        for node in primaries:
            first = _SLOTS * node.number // _PRIMARIES
            last = _SLOTS * (node.number + 1) // _PRIMARIES - 1
            node.cluster("ADDSLOTSRANGE", first, last)
            node.cluster("SET-CONFIG-EPOCH", node.number + 1)  # no two may have the same
        for node in self.nodes[1:]:
            self.nodes[0].meet(node)
        self.until_complete()
        for replica, primary in zip(replicas, primaries, strict=False):
            replica.cluster("REPLICATE", primary.id)
        for replica in replicas:
            until(replica.follows, "the replicas to follow", _WITHIN_S)
        until(self._replicas_are_known, "the primaries to know the replicas", _WITHIN_S)

    def until_complete(self) -> None:
        """Return when every node knows all others and sees all slots served."""
        count = len(self.nodes)
        for node in self.nodes:
            until(partial(node.knows, count), "the nodes to join", _WITHIN_S)

    def _replicas_are_known(self) -> bool:
        return all(
            node.cluster("NODES").count(b"slave") == len(self.nodes) - _PRIMARIES
            for node in self.nodes
        )

    # -- who has what ----------------------------------------------------------------------------

    def primaries(self) -> list[ClusterServer]:
        """Return the nodes that run and consider themselves primaries."""
        return [node for node in self.nodes if node.process is not None and node.is_primary()]

    def owner(self, slot: int) -> ClusterServer:
        """Return the primary that has the slot, as it says itself: another one may not know yet."""
        for node in self.primaries():
            if any(first <= slot <= last for first, last in node.slots_of(node.id)):
                return node
        raise LookupError(f"slot {slot} has no owner")

    def replica_of(self, primary: ClusterServer) -> ClusterServer:
        """Return the replica of a primary."""
        for node in self.nodes:
            if node.process is not None:
                role = node.command("ROLE")
                if role[0] == b"slave" and role[2] == primary.port:
                    return node
        raise LookupError(f"the primary at port {primary.port} has no replica")

    def _successor_of(self, primary: ClusterServer) -> ClusterServer:
        """Return its replica, when that knows all its slots: one that has just come would be left behind."""
        replica = self.replica_of(primary)
        node_id = primary.id
        until(
            lambda: replica.slots_of(node_id) == primary.slots_of(node_id),
            "the replica to know the slots of its primary",
            _WITHIN_S,
        )
        return replica

    def slot(self, key: str | bytes) -> int:
        """Return the slot of a key."""
        return int(self.nodes[0].cluster("KEYSLOT", key))

    def used_slots(self, pattern: str = "*") -> set[int]:
        """Return the slots that have keys that match the pattern."""
        found = set()
        for node in self.primaries():
            with node.client() as client:
                found |= {
                    int(client.execute_command("CLUSTER", "KEYSLOT", key))
                    for key in client.scan_iter(pattern)
                }
        return found

    # -- what can befall it ----------------------------------------------------------------------

    def cut_connections(self) -> None:
        """Close the connections of all clients."""
        for node in self.primaries():
            node.cut_connections()

    def fail_over(self, primary: ClusterServer) -> ClusterServer:
        """Make a primary hand over to its replica, without loss; return the new primary.

        After a vote for a replica, Redis casts none for another replica of the same primary for two
        node timeouts; Valkey does. Once a handover was abandoned, all are made without votes.
        """
        replica = self._successor_of(primary)
        self._votes = self._votes and self._is_elected(replica)
        if not replica.is_primary():
            self.hold_writes(primary)
            try:
                self.promote(replica)
            finally:
                primary.command("CLIENT", "UNPAUSE")
        until(lambda: not primary.is_primary(), "the former primary to know", _WITHIN_S)
        return replica

    def _is_elected(self, replica: ClusterServer) -> bool:
        """Request a handover; return False if the nodes abandoned it, as they do after 5 s."""
        replica.cluster("FAILOVER")
        with contextlib.suppress(TimeoutError):
            until(replica.is_primary, "the handover", _HANDOVER_S)
        return replica.is_primary()

    def hold_writes(self, primary: ClusterServer) -> None:
        """Let a primary execute no more writes; return when its replica has all that were acknowledged."""
        replica = self.replica_of(primary)
        primary.command("CLIENT", "PAUSE", int(_WITHIN_S * 1000), "WRITE")
        written = primary.command("ROLE")[1]
        until(lambda: replica.command("ROLE")[4] >= written, "the replica to have all", _WITHIN_S)

    def kill_primary(self, primary: ClusterServer) -> ClusterServer:
        """Kill a primary and have its replica take over at once; return the new primary."""
        replica = self._successor_of(primary)
        primary.kill()
        self.promote(replica)
        return replica

    def promote(self, replica: ClusterServer) -> None:
        """Make a replica the primary without asking the others; return when they know."""
        if not replica.is_primary():  # by a late vote
            replica.cluster("FAILOVER", "TAKEOVER")
        until(replica.is_primary, "the replica to take over", _WITHIN_S)
        for node in self.primaries():
            until(partial(node.names, replica), "the others to know the new primary", _WITHIN_S)

    def revive(self, node: ClusterServer) -> None:
        """Start a killed node again, which then follows the primary that replaced it."""
        node.start()
        until(node.follows, "the node to follow", _WITHIN_S)

    def begin_move(self, slot: int, target: ClusterServer) -> ClusterServer:
        """Begin to hand a slot over: its keys may be on both nodes; return the one that has it now."""
        source = self.owner(slot)
        target.cluster("SETSLOT", slot, "IMPORTING", source.id)
        source.cluster("SETSLOT", slot, "MIGRATING", target.id)
        return source

    def move_keys(self, slot: int, target: ClusterServer, most: int = 1000) -> int:
        """Hand over some keys of a slot that is moving; return how many."""
        source = self.owner(slot)
        keys = source.cluster("GETKEYSINSLOT", slot, most)
        if keys:
            to = (target.host, target.port, "", 0, 60_000, "AUTH", self._password)
            source.command("MIGRATE", *to, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, target: ClusterServer) -> None:
        """Make the target the owner of a slot that has been handed over."""
        target_id = target.id
        others = [node for node in self.primaries() if node is not target]
        for node in (target, *others):
            node.cluster("SETSLOT", slot, "NODE", target_id)

    def move(self, slot: int, target: ClusterServer) -> None:
        """Hand a slot over with all its keys."""
        self.begin_move(slot, target)
        while self.move_keys(slot, target):
            pass
        self.end_move(slot, target)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all nodes at the same time, and remove their directories; safe to call twice."""
        for node in self.nodes:
            if node.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    node.send(signal.SIGTERM)
        for node in self.nodes:
            node.stop()
        self.nodes = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
