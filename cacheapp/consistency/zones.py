"""Judge a key with distinct written values in near-linear time, by zones instead of a search.

Algorithm: Gibbons & Korach, "Testing Shared Memories" (1997), for reads whose write is known; Lee &
Mathur (arXiv 2410.04581) call such a history unambiguous. A cluster is the write of a value and the
reads of it. Each value is written once, so a cluster is contiguous in any order. Cluster A must come
before cluster B if an operation of A ended before one of B began: if A's earliest end is before B's
latest call. An order exists if and only if no two clusters must each come before the other: then the
relation has no longer cycle either. Sorting makes this O(n log n).

`delete`, and calls that need an absent key, are clusters of their own: they prove that a history is
illegal, though not that it is legal. Counters write values that are not distinct, and are not judged.
"""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome
from cacheapp.consistency.search import Found, Verdict

_GET, _SET, _ADD = OperationKind.GET, OperationKind.SET, OperationKind.ADD
_DELETE = OperationKind.DELETE
_COUNTING = {OperationKind.INCR, OperationKind.DECR}
_COMPARED = 50  # contradictions, of which the shortest is taken


@dataclass(slots=True, eq=False)
class _Cluster:
    """The operations on one value. `first`: the one that ended first; `last`: the one called last."""

    write: Operation | None
    first: Operation | None
    last: Operation | None
    first_end: float
    last_call: float

    @property
    def core(self) -> set[Operation]:
        """The operations that decide where the cluster may be."""
        return {one for one in (self.write, self.first, self.last) if one is not None}


@dataclass(slots=True)
class _Parts:
    """A history in clusters. `complete`: whether these tell everything about it."""

    clusters: dict[Hashable, _Cluster]
    lone: list[Operation]
    """Operations of no value, each a cluster of its own."""
    complete: bool
    impossible: tuple[Operation, ...] = ()
    """A read of a value that was not written, or not yet."""


def judge_zones(operations: Sequence[Operation], *, evicts: bool = False) -> Found | None:
    """Judge one key's operations, initially absent; return `None` if zones do not decide it.

    `evicts`: the entry may be evicted at any moment.
    """
    clusters = _by_write(operations)
    if clusters is None:
        return None
    parts = _with_reads(operations, clusters, evicts=evicts)
    if parts.impossible:
        return _illegal(parts.impossible)
    if core := _contradiction(parts):
        return _illegal(core)
    return Found(Verdict.LINEARIZABLE, len(operations)) if parts.complete else None


def _illegal(core: Sequence[Operation]) -> Found:
    blocked = max(core, key=lambda one: one.end)
    return Found(Verdict.ILLEGAL, len(core), blocked, tuple(core))


def _by_write(operations: Sequence[Operation]) -> dict[Hashable, _Cluster] | None:
    """Return a cluster for each value that was written; `None` if one may be written twice."""
    found: dict[Hashable, _Cluster] = {}
    for one in operations:
        kind = one.kind
        if kind is _GET:
            continue
        if kind is _SET or (kind is _ADD and one.result is not False):
            unsaid = kind is _ADD and one.result is None and one.outcome is Outcome.OK
            if one.argument in found or unsaid:
                return None
            found[one.argument] = _Cluster(one, one, one, one.end, one.call_ns)
        elif kind in _COUNTING and one.result is not ABSENT:
            return None
    return found


def _with_reads(
    operations: Sequence[Operation], clusters: dict[Hashable, _Cluster], *, evicts: bool
) -> _Parts:
    """Give each read to the cluster of its value."""
    parts = _Parts(clusters, [], complete=True)
    absent = _Cluster(None, None, None, -inf, -inf)  # the time before the first write
    lone = evicts or any(one.kind is _DELETE for one in operations)
    for one in operations:
        kind = one.kind
        if kind is _SET:
            continue
        if kind is not _GET:
            parts.complete = False
        if kind is _GET and one.result is not ABSENT:
            cluster = clusters.get(one.result)
            if cluster is None:
                parts.impossible = (one,)
                return parts
            if (write := cluster.write) and one.end < write.call_ns:
                parts.impossible = (one, write)
                return parts
            _join(cluster, one)
        elif _needs_or_leaves_absence(one):
            if lone:
                parts.lone.append(one)
            else:
                _join(absent, one)
    if absent.last is not None:
        clusters[ABSENT] = absent
    return parts


def _needs_or_leaves_absence(one: Operation) -> bool:
    if one.outcome is not Outcome.OK:
        return False
    if one.kind is _DELETE:
        return True
    return one.result is ABSENT or (one.kind is not _ADD and one.result is False)


def _join(cluster: _Cluster, one: Operation) -> None:
    end = one.end
    if end < cluster.first_end:
        cluster.first, cluster.first_end = one, end
    if one.call_ns > cluster.last_call:
        cluster.last, cluster.last_call = one, one.call_ns


def _contradiction(parts: _Parts) -> tuple[Operation, ...]:
    """Return the operations of two clusters that must each come before the other; empty if none must."""
    clusters = list(parts.clusters.values())
    clusters += [_Cluster(None, one, one, one.end, one.call_ns) for one in parts.lone]
    forward = [one for one in clusters if one.first_end < one.last_call]
    forward.sort(key=lambda one: one.first_end)
    found: list[set[Operation]] = []
    widest: _Cluster | None = None
    for one in forward:
        if widest is not None and one.first_end < widest.last_call:
            found.append(widest.core | one.core)
        if widest is None or one.last_call > widest.last_call:
            widest = one
        if len(found) >= _COMPARED:
            break
    if not found or len(found) < _COMPARED:
        found += _contained(clusters, forward)
    shortest = min(found, key=len, default=set())
    return tuple(sorted(shortest, key=lambda one: one.call_ns))


def _contained(clusters: Sequence[_Cluster], forward: Sequence[_Cluster]) -> list[set[Operation]]:
    """Return the pairs of a cluster that must last, and another that fits nowhere but inside it."""
    starts = [one.first_end for one in forward]
    found: list[set[Operation]] = []
    for one in clusters:
        if one.first_end < one.last_call:
            continue
        index = bisect_left(starts, one.last_call) - 1
        if index >= 0 and one.first_end < forward[index].last_call:
            found.append(forward[index].core | one.core)
            if len(found) >= _COMPARED:
                break
    return found
