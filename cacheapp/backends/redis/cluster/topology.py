"""Which node of a cluster has which slots, as far as this process knows.

A node that does not have a key says so (MOVED), so an old view costs a round trip and no promise.
A node that is down says nothing: after each failure the others are asked, at most ten times a second.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from cacheapp import clock
from cacheapp.backends.redis.cluster.keys import SLOTS
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.nodes import Address, Place, SlotRange, parse_slots
from cacheapp.backends.redis.executor import FailureKind, is_of_handler
from cacheapp.errors import CacheappError, StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

REFRESH_EVERY_S = 0.1  # at most, however many calls fail


class Topology:
    """The nodes and the owners of the slots.

    `_lock` is held by the one thread that asks the cluster for the first time, also while that takes long.
    `_is_asking` makes the others go on without an answer later; it is no lock, because a signal handler may raise
    after a lock was acquired without waiting, before anything knows that it was. `_nodes_lock` guards `_nodes` and
    the changes of `_owners`, for a moment. Both locks are reentrant: a signal handler may use the cache between.
    `_owners` and `_replicas` are replaced as a whole, and read without a lock.
    """

    def __init__(
        self, seeds: Sequence[Address], open_node: Callable[[str, int], ClusterNode], name: str
    ) -> None:
        self._seeds = tuple(seeds)
        self._open_node = open_node
        self._name = name
        self._lock = reentrant_lock()
        self._nodes_lock = reentrant_lock()
        self._nodes: dict[Address, ClusterNode] = {}
        self._owners: list[ClusterNode | None] | None = None
        self._replicas: list[Address] = []
        self._is_asking = False
        self._refreshed_at_s = -REFRESH_EVERY_S
        self._failures = 0  # of asking, and the latest reason
        self._unreachable = ""

    # -- what is known ---------------------------------------------------------------------------

    def owner(self, slot: int) -> ClusterNode:
        """Return the node of the slot; `StoreUnavailable` if it has none, or no node replies.

        The successor of a node that is known to be down is looked for before anything waits for it.
        """
        owners = self._owners
        if owners is None:
            self.load()
            owners = self._owners or []
        node = owners[slot]
        if node is not None and not node.breaker.closed:
            return self.another_owner(slot, node) or node
        if node is None:
            self.refresh()
            node = self._owners[slot] if self._owners else None
        if node is None:
            raise StoreUnavailable(
                f"slot {slot} has no owner in {self._name}; nothing was sent: the cluster is "
                "incomplete, and serves these keys again when a node has the slot"
            )
        return node

    def owners(self) -> Sequence[ClusterNode | None]:
        """Return the node of each slot; the same object as long as nothing else is known."""
        self.load()
        return self._owners or ()

    def primaries(self) -> list[ClusterNode]:
        """Return the nodes that have slots, in the order of their addresses."""
        self.load()
        found = {node for node in self._owners or () if node is not None}
        return sorted(found, key=lambda node: (node.host, node.port))

    def known_nodes(self) -> list[ClusterNode]:
        """Return every node that this process has connections to."""
        return list(self._nodes.values())

    def node(self, host: str, port: int) -> ClusterNode:
        """Return the node at an address, which is opened at the first use."""
        found = self._nodes.get((host, port))
        if found is None:
            with self._nodes_lock:
                found = self._nodes.get((host, port)) or self._open_node(host, port)
                self._nodes[host, port] = found
        return found

    # -- changes ---------------------------------------------------------------------------------

    def moved(self, slot: int, host: str, port: int) -> ClusterNode:
        """Note what a MOVED reply says, and ask for the rest, which has changed too; return the node."""
        node = self.node(host, port)
        with self._nodes_lock:
            owners = self._owners
            if owners is None or owners[slot] is node:
                return node
            changed = owners.copy()
            changed[slot] = node
            self._owners = changed
        self.refresh(first=node)
        return node

    def another_owner(self, slot: int, failed: ClusterNode) -> ClusterNode | None:
        """Return the node that has taken the slot over from a failed one, if one has."""
        owners = self._owners
        if owners is None or owners[slot] is failed:
            self.refresh(last=failed)
            owners = self._owners
        node = owners[slot] if owners else None
        return None if node is failed else node

    def refresh(
        self,
        *,
        first: ClusterNode | None = None,
        last: ClusterNode | None = None,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask the cluster anew, unless another thread does or has just done it; raise no failure.

        `first` is the node to ask before the others, `last` one that seems to be down or cut off. `before_each`
        is called before each: one that hangs takes a time-out.
        """
        if self._is_asking or clock.monotonic_s() < self._refreshed_at_s + REFRESH_EVERY_S:
            return
        # Two threads that come here at the same moment both ask, which does no harm.
        self._is_asking = True
        try:
            self._ask(first, last, before_each)
        except CacheappError as exc:
            if is_of_handler(exc):
                raise
        finally:
            self._is_asking = False

    def load(self) -> None:
        """Ask for the first time; the other threads wait for the one that does, and fail with it."""
        if self._owners is None:
            failures = self._failures
            with self._lock:
                if self._owners is None:
                    if self._failures != failures:
                        raise StoreUnavailable(self._unreachable)
                    self._ask(None, None, lambda: None)

    def _ask(
        self, first: ClusterNode | None, last: ClusterNode | None, before_each: Callable[[], None]
    ) -> None:
        """Take over what the first node says that replies; `StoreUnavailable` if none does."""
        reason: CacheappError | None = None
        for node in self._candidates(first, last):
            before_each()
            try:
                found = parse_slots(node.execute(b"CLUSTER", b"SLOTS", kind=FailureKind.READ))
            except CacheappError as exc:
                if is_of_handler(exc):
                    raise
                reason = exc
                continue
            if found:  # a node that has been reset knows no slots
                self._take_over(found, node)
                return
            reason = StoreUnavailable(f"{node!r} knows no slots")
        self._refreshed_at_s = clock.monotonic_s()
        self._failures += 1
        self._unreachable = (
            f"no node of {self._name} says which node has which slots; nothing was sent ({reason})"
        )
        raise StoreUnavailable(self._unreachable) from reason

    def _candidates(
        self, first: ClusterNode | None, last: ClusterNode | None
    ) -> Iterator[ClusterNode]:
        """Yield the nodes to ask: the owners of slots, those without failures first, then all others.

        The order is random, because one that is cut off from the others replies too, with an old view.
        """
        owners = list({node for node in self._owners or () if node is not None})
        random.shuffle(owners)
        known = [(node.host, node.port) for node in sorted(owners, key=_has_failed)]
        if first is not None:
            yield first
        for address in dict.fromkeys([*known, *self._replicas, *self._seeds]):
            node = self.node(*address)
            if node is not first and node is not last:
                yield node
        if last is not None:
            yield last

    def _take_over(self, ranges: list[tuple[SlotRange, list[Place]]], source: ClusterNode) -> None:
        owners: list[ClusterNode | None] = [None] * SLOTS
        replicas: list[Address] = []
        for (first, last), (primary, *others) in ranges:
            node = self.node(*address_of(primary, source))
            node.id = primary.id
            owners[first : last + 1] = [node] * (last + 1 - first)
            replicas += [address_of(other, source) for other in others]
        with self._nodes_lock:
            self._owners, self._replicas = owners, list(dict.fromkeys(replicas))
        self._refreshed_at_s = clock.monotonic_s()
        self._forget_others()

    def _forget_others(self) -> None:
        """Close what belongs to nodes without slots; a call that uses one keeps its connection."""
        primaries = {node for node in self._owners or () if node is not None}
        with self._nodes_lock:
            others = set(self._nodes.values()) - primaries
            for node in others:
                del self._nodes[node.host, node.port]
        for node in others:
            node.forget()

    def close(self) -> None:
        """Close the idle connections to all nodes."""
        for node in self.known_nodes():
            node.close()


def _has_failed(node: ClusterNode) -> bool:
    return node.breaker.has_failures


def address_of(place: Place, source: ClusterNode) -> Address:
    """Return the address of a node in a reply of `source`."""
    return host_of(place.host, source), place.port


def host_of(name: str, source: ClusterNode) -> str:
    """Return the host of a node that `source` has named; one that is not known has that of `source`."""
    return source.host if name in {"", "?"} else name
