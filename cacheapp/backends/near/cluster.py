"""The nodes of a cluster, as a listener follows them: all of them, or nothing is confirmed.

Each primary sends the names of keys that change there. Every node, replicas too, says at each interval
how it sees the cluster. The epoch of the copy means one such view, on which all nodes agree: as long as
they still do, no other node had executed a write before they were asked.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from cacheapp.backends.near import cluster_view
from cacheapp.backends.near.cluster_view import Member, View, is_tracked
from cacheapp.backends.near.tracking import (
    Command,
    Messages,
    ServersChanged,
    TrackingConnection,
    is_refusal,
    naming,
)
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.topology import Address, Topology, address_in
from cacheapp.backends.redis.executor import FailureKind
from cacheapp.errors import CacheappError, StoreUnavailable

_NODES: Command = (b"CLUSTER", b"NODES")
_INFO: Command = (b"CLUSTER", b"INFO")
_SLOTS: Command = (b"CLUSTER", b"SLOTS")
_READ = FailureKind.READ


class TrackedCluster:
    """All nodes of a cluster that are not failed."""

    questions: Sequence[Command] = (_NODES, _INFO)

    def __init__(
        self, topology: Topology, build_pool: Callable[[str, int], Any], prefix: bytes
    ) -> None:
        self._topology = topology
        self._build_pool = build_pool
        self._prefix = prefix
        self._view = View(0, frozenset())

    def connect(self, connections: list[TrackingConnection], messages: Messages) -> None:
        """Connect to all nodes, and have the primaries track keys; return when all views are equal."""
        view, addresses = self._discover()
        members = view.live()
        for member in members:
            self._connect_to(member, addresses, connections, messages)
        for connection in connections:
            connection.send(*self.questions)
        replies = [[each.read_reply() for _ in self.questions] for each in connections]
        self._view, self._asked = view, [member.id for member in members]
        self.check(replies)

    def _connect_to(
        self,
        member: Member,
        addresses: dict[bytes, Address],
        connections: list[TrackingConnection],
        messages: Messages,
    ) -> None:
        host, port = addresses[member.id]
        pool = self._build_pool(host, port)
        connection = TrackingConnection(pool, messages, f"the cluster node {host}:{port}")
        connections.append(connection)
        connection.connect()
        if is_tracked(member):
            connection.track(self._prefix)

    def _discover(self) -> tuple[View, dict[bytes, Address]]:
        """Return the view of one primary, and the addresses of all nodes."""
        self._topology.refresh()
        nodes = self._topology.primaries()
        random.shuffle(nodes)  # not always one that is cut off from the others
        reason: CacheappError = StoreUnavailable("the cluster has no primary")
        for node in nodes:
            try:
                return self._ask(node)
            except CacheappError as exc:
                if exc.__cause__ is not None and is_refusal(exc.__cause__):
                    with naming(f"the cluster node {node.host}:{node.port}"):
                        raise exc.__cause__ from exc  # the user may not ask, here or elsewhere
                reason = exc
        raise reason

    def _ask(self, node: ClusterNode) -> tuple[View, dict[bytes, Address]]:
        nodes = node.execute(*_NODES, kind=_READ)
        statement = cluster_view.parse(nodes, node.execute(*_INFO, kind=_READ))
        preferred = {
            entry[2]: address_in(entry, node)
            for _, _, *entries in node.execute(*_SLOTS, kind=_READ)
            for entry in entries
        }
        found = cluster_view.addresses(nodes, preferred)
        known = {name: (host or node.host, port) for name, (host, port) in found.items()}
        return statement.view, known

    def check(self, replies: Sequence[Sequence[Any]]) -> None:
        """Raise `ServersChanged` unless all nodes have the view of the epoch."""
        view, primaries = self._view, self._view.primaries()
        if not view.has_majority():
            raise ServersChanged("most primaries of the cluster are down")
        for expected, (nodes, info) in zip(self._asked, replies, strict=True):
            found = cluster_view.parse(nodes, info)
            if found.id != expected:
                raise ServersChanged(f"another node has the address of {expected.decode()}")
            if found.view != view:
                raise ServersChanged(
                    f"the nodes of the cluster changed, or do not agree: {expected.decode()} does not "
                    "see them as when the epoch began"
                )
            if not found.targets <= primaries:
                raise ServersChanged("a slot is being moved to a node that is down")

    def owners(self) -> bytes:
        """Return which primary has which slots."""
        return cluster_view.pack_owners(self._view)
