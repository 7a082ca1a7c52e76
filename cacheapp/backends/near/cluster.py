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
from cacheapp.backends.redis.cluster.nodes import Address, parse_slots, without_times
from cacheapp.backends.redis.cluster.topology import Topology, address_of
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
        self.begin(View(0, frozenset()))

    def begin(self, view: View) -> list[Member]:
        """Take this view for the one of the next epoch; return the nodes that must have it."""
        members = view.live()
        self._view = view
        self._asked = [member.id for member in members]
        # What each of them said with this view, without times.
        self._repeated = [b""] * len(members)
        return members

    def connect(
        self, connections: list[TrackingConnection], messages: Messages, renew: Callable[[], None]
    ) -> None:
        """Connect to all nodes, and have the primaries track keys; return when all views are equal."""
        view, addresses = self._discover(renew)
        for member in self.begin(view):
            renew()
            self._connect_to(member, addresses, connections, messages)
        for connection in connections:
            connection.send(*self.questions)
        replies = []
        for connection in connections:
            renew()
            replies.append([connection.read_reply() for _ in self.questions])
        self.check(replies)

    def _connect_to(
        self,
        member: Member,
        addresses: dict[bytes, Address],
        connections: list[TrackingConnection],
        messages: Messages,
    ) -> None:
        host, port = addresses[member.id]
        if not port:
            raise ServersChanged(f"the address of {member.id.decode()} is not known")
        pool = self._build_pool(host, port)
        connection = TrackingConnection(pool, messages, f"the cluster node {host}:{port}")
        connections.append(connection)
        connection.connect()
        if is_tracked(member):
            connection.track(self._prefix)

    def _discover(self, renew: Callable[[], None]) -> tuple[View, dict[bytes, Address]]:
        """Return the view of one primary, and the addresses of all nodes."""
        self._topology.refresh(before_each=renew)
        nodes = self._topology.primaries()
        random.shuffle(nodes)  # not always one that is cut off from the others
        reason: CacheappError = StoreUnavailable("the cluster has no primary")
        for node in nodes:
            renew()
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
            place.id: address_of(place, node)
            for _, places in parse_slots(node.execute(*_SLOTS, kind=_READ))
            for place in places
        }
        found = cluster_view.addresses(nodes, preferred)
        known = {name: (host or node.host, port) for name, (host, port) in found.items()}
        return statement.view, known

    def check(self, replies: Sequence[Sequence[Any]]) -> None:
        """Raise `ServersChanged` unless all nodes have the view of the epoch.

        A node that repeats what it said when it had that view, but for the times of PINGs, still has it: only the
        epoch is compared then. To parse what all nodes say of all nodes takes six times as long.
        """
        if not self._view.has_majority():
            raise ServersChanged("most primaries of the cluster are down")
        for number, (asked, (nodes, info)) in enumerate(zip(self._asked, replies, strict=True)):
            said = without_times(nodes)
            if said != self._repeated[number]:
                self._check_view(asked, nodes, info)
                self._repeated[number] = said
            elif cluster_view.current_epoch(info) != self._view.current_epoch:
                raise self._changed(asked)

    def _check_view(self, expected: bytes, nodes: Any, info: Any) -> None:
        found = cluster_view.parse(nodes, info)
        if found.id != expected:
            raise ServersChanged(f"another node has the address of {expected.decode()}")
        if found.view != self._view:
            raise self._changed(expected)
        if not found.targets <= self._view.primaries():
            raise ServersChanged("a slot is being moved to a node that is down")

    def _changed(self, asked: bytes) -> ServersChanged:
        return ServersChanged(
            f"the nodes of the cluster changed, or do not agree: {asked.decode()} does not see them as "
            "when the epoch began"
        )

    def owners(self) -> bytes:
        """Return which primary has which slots."""
        return cluster_view.pack_owners(self._view)
