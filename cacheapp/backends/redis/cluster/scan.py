"""Look at every key of a cluster, also while slots move from node to node.

A pass is a SCAN of every primary. A key that moves during it may be missed: its old node is scanned
after it left, and its new one before it came. So each node is asked before and after the pass which
slots it has, and which of them it is handing over. A slot with the same owner before and after, that
was not being handed over, was scanned completely. One that was being handed over was, if its old node
was scanned before its new one, because keys go only in that direction. All other slots are scanned
again. Not noticed is a slot that moves away and back within one pass.

A node that fails is left for those that have its slots now, and these slots are scanned again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp.backends.redis.cluster.keys import SLOTS, key_slot
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.nodes import NodeEntry, SlotRange, own_entry, parse_nodes
from cacheapp.backends.redis.cluster.topology import REFRESH_EVERY_S, Topology, host_of
from cacheapp.backends.redis.executor import FailureKind, is_of_handler
from cacheapp.errors import StoreUnavailable

_PASSES = 20
_PAUSE_S = 0.05

_READ = FailureKind.READ
_SlotState = tuple[ClusterNode, ClusterNode | None] | None
"""The owner of a slot, and the node that it is being handed over to; `None` without exactly one owner."""


@dataclass(frozen=True)
class _Claims:
    """What a node says of itself: the ranges of its slots, and to whom it hands some of them over."""

    ranges: tuple[SlotRange, ...]
    leaving: tuple[tuple[int, ClusterNode], ...]


Visit = Callable[[ClusterNode], Iterable[list[bytes]]]


def visit_primaries(topology: Topology, visit: Visit) -> Iterator[list[bytes]]:
    """Visit every primary, again if slots have moved; yield the keys of these slots that it yields.

    Each key that exists during the whole scan is yielded, possibly repeatedly. `StoreUnavailable` if a
    slot has no owner, or if slots move faster than they are visited; keys may have been missed then.
    """
    left: set[int] | None = None
    before = _look(topology)
    for number in range(_PASSES):
        order = []
        for node in _order(before, left):
            try:
                for keys in visit(node):
                    yield keys if left is None else [key for key in keys if key_slot(key) in left]
            except StoreUnavailable as exc:
                _raise_unless_replaced(node, topology, exc)
            else:
                order.append(node)
        after = _look(topology)
        left = _missed(before, after, order, left)
        if not left:
            return
        if number:
            time.sleep(_PAUSE_S)
        topology.refresh()
        before = _look(topology)
    raise StoreUnavailable(
        f"{len(left or ())} slots of the cluster have no owner or kept moving (the lowest is "
        f"{min(left or {0})}): their keys may have been missed; try again"
    )


def scan(node: ClusterNode, glob: bytes, count: int) -> Iterator[list[bytes]]:
    """Yield the keys of a node that match, as SCAN returns them: possibly repeated, and not in order."""
    cursor: Any = b"0"
    while True:
        cursor, keys = node.execute(
            b"SCAN", cursor, b"MATCH", glob, b"COUNT", b"%d" % count, kind=_READ
        )
        if keys:
            yield keys
        if int(cursor) == 0:
            return


def _raise_unless_replaced(node: ClusterNode, topology: Topology, reason: StoreUnavailable) -> None:
    """Return if a node that failed has no slots any more; else raise the reason."""
    if is_of_handler(reason):
        raise reason
    topology.refresh(last=node)
    if node in topology.primaries():
        # Another thread may have asked just before the node was replaced; then nobody asks again at once.
        time.sleep(REFRESH_EVERY_S)
        topology.refresh(last=node)
        if node in topology.primaries():
            raise reason


def _look(topology: Topology) -> dict[ClusterNode, _Claims]:
    """Ask every primary about itself: what others say of it may be out of date.

    One that fails and has been replaced claims nothing, so its slots are visited again.
    """
    found = {}
    for node in topology.primaries():
        try:
            found[node] = _claims_of(node, topology)
        except StoreUnavailable as exc:
            _raise_unless_replaced(node, topology, exc)
    return found


def _claims_of(node: ClusterNode, topology: Topology) -> _Claims:
    entries = parse_nodes(node.execute(b"CLUSTER", b"NODES", kind=_READ))
    own = own_entry(entries)
    if not own.is_primary:
        return _Claims((), ())
    known = {entry.id: entry for entry in entries if entry.port}
    # Without an address, the target has left the cluster: then no key goes there.
    leaving = tuple(
        (slot, _node_of(known[target], own, node, topology))
        for slot, target in own.leaving
        if target in known
    )
    return _Claims(own.slots, leaving)


def _node_of(
    entry: NodeEntry, own: NodeEntry, source: ClusterNode, topology: Topology
) -> ClusterNode:
    """Return the node of an entry, by its name if `source` has its own.

    CLUSTER SLOTS names all nodes in one way, addresses or names, and certificates may be valid for only one.
    """
    by_name = entry.hostname and source.host == own.hostname
    return topology.node(entry.hostname if by_name else host_of(entry.host, source), entry.port)


def _states(claims: dict[ClusterNode, _Claims]) -> list[_SlotState]:
    owners: list[_SlotState] = [None] * SLOTS
    several = set()
    for node, own in claims.items():
        for first, last in own.ranges:
            for slot in range(first, last + 1):
                several |= {slot} if owners[slot] else set()
                owners[slot] = (node, None)
        for slot, target in own.leaving:
            owners[slot] = (node, target)
    for slot in several:
        owners[slot] = None
    return owners


def _order(claims: dict[ClusterNode, _Claims], left: set[int] | None) -> list[ClusterNode]:
    """Return the nodes to scan in turn: for each slot that is handed over, the old node before the new."""
    moves = [(node, target) for node, own in claims.items() for _, target in own.leaving]
    first = list(dict.fromkeys(source for source, _ in moves))
    then = [node for node in claims if node not in first]
    last = [target for target in dict.fromkeys(target for _, target in moves) if target not in then]
    order = [*first, *then, *last]
    if left is None:
        return order
    states = _states(claims)
    needed = {node for slot in left for node in states[slot] or ()}
    return [node for node in order if node in needed]


def _missed(
    before: dict[ClusterNode, _Claims],
    after: dict[ClusterNode, _Claims],
    order: Sequence[ClusterNode],
    left: set[int] | None,
) -> set[int]:
    """Return the slots whose keys may have been missed."""
    if before == after and _is_at_rest(before):
        return set()
    slots = range(SLOTS) if left is None else left
    old, new = _states(before), _states(after)
    return {slot for slot in slots if not _is_complete(old[slot], new[slot], order)}


def _is_at_rest(claims: dict[ClusterNode, _Claims]) -> bool:
    """Return True if every slot has one owner, and none is being handed over."""
    ranges = sorted(found for own in claims.values() for found in own.ranges)
    ends = [-1, *(last for _, last in ranges)]
    return (
        not any(own.leaving for own in claims.values())
        and [first for first, _ in ranges] == [last + 1 for last in ends[:-1]]
        and ends[-1] == SLOTS - 1
    )


def _is_complete(old: _SlotState, new: _SlotState, order: Sequence[ClusterNode]) -> bool:
    if old is None or new is None or old[0] not in order:
        return False
    source, target = old
    if target is None:
        return old == new
    if target not in order or order.index(source) > len(order) - 1 - order[::-1].index(target):
        return False
    return new in (old, (target, None))
