"""Faults of a private Redis Cluster: a primary hands over, slots move, a primary is killed."""

from collections import Counter
from collections.abc import Hashable

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding
from cacheapp.cachecheck.workloads.outages import disturbed
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome
from cacheapp.processes.redis_cluster import ClusterServer, PrivateCluster

HANDOVER, SLOTS_MOVE, PRIMARY_KILLED = "a primary hands over", "slots move", "a primary killed"


def handover(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Have each primary hand over to its replica: nothing may be lost."""

    def hand_over() -> None:
        for primary in cluster.primaries():
            cluster.fail_over(primary)

    return [disturbed(run, HANDOVER, hand_over)]


def slots_move(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Move each slot that has keys to another primary and on to the next: nothing may be lost."""

    def move() -> None:
        for _ in range(2):
            for slot in sorted(cluster.used_slots()):
                primaries = cluster.primaries()
                owner = cluster.owner(slot)
                cluster.move(slot, primaries[(primaries.index(owner) + 1) % len(primaries)])

    return [disturbed(run, SLOTS_MOVE, move)]


def primary_killed(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Kill a primary, and have its replica take over.

    Replication is asynchronous, so a key may have gone back, once, to a value that it had before the kill.
    Everything else must be in order.
    """
    killed_ns = 0

    def kill() -> None:
        nonlocal killed_ns
        primary = _least_used(cluster)
        killed_ns = clock.monotonic_ns()
        cluster.kill_primary(primary)
        cluster.revive(primary)

    def with_losses(history: list[Operation]) -> list[Operation]:
        # Calls that were refused until the replica had taken over say nothing.
        kept = [one for one in history if one.outcome is not Outcome.FAIL]
        return kept + possible_losses(kept, killed_ns)

    return [disturbed(run, PRIMARY_KILLED, kill, with_losses)]


def _least_used(cluster: PrivateCluster) -> ClusterServer:
    """Return a primary with few of the keys, but with some: most calls are to succeed."""
    used = Counter(map(cluster.owner, cluster.used_slots()))
    return min(used, key=used.__getitem__) if used else cluster.primaries()[0]


def possible_losses(history: list[Operation], killed_ns: int) -> list[Operation]:
    """Return what the failover may have done: to each key, a return to what was written before.

    Each is a write of unknown outcome. Only what is read afterwards matters.
    """
    read = {
        (one.key, one.result)
        for one in history
        if one.kind is OperationKind.GET and one.outcome is Outcome.OK and one.end >= killed_ns
    }
    found = []
    for key, value in sorted(read, key=repr):
        if value is ABSENT:
            found.append(_loss(OperationKind.DELETE, key, killed_ns, None))
        elif any(
            one.key == key and one.argument == value and one.call_ns <= killed_ns for one in history
        ):
            found.append(_loss(OperationKind.SET, key, killed_ns, value))
    return found


def _loss(kind: OperationKind, key: str, killed_ns: int, value: Hashable) -> Operation:
    name = f"failover to {value}"
    return Operation(name, kind, key, killed_ns, None, value, outcome=Outcome.INFO)
