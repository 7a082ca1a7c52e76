"""Faults of a private Redis Cluster: a primary hands over, slots move, a primary is killed."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from cacheapp import clock
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding
from cacheapp.cachecheck.workloads.outages import disturbed
from cacheapp.cachecheck.workloads.registers import KEYS
from cacheapp.consistency.decision import decide
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome, by_key
from cacheapp.consistency.models import EvictingKey, Key, Model
from cacheapp.consistency.search import Verdict
from cacheapp.processes.redis_cluster import PrivateCluster

HANDOVER, SLOTS_MOVE, PRIMARY_KILLED = "a primary hands over", "slots move", "a primary killed"


def handover(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Have each primary hand over to its replica: nothing may be lost."""

    def hand_over() -> None:
        for primary in cluster.primaries():
            cluster.fail_over(primary)

    return [disturbed(run, HANDOVER, run.keys("handover", KEYS), hand_over)]


def slots_move(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Move the slot of each key to another primary and on to the next: nothing may be lost."""
    keys = run.keys("slots", KEYS)
    slots = _slots(run, cluster, keys)

    def move() -> None:
        for _ in range(2):
            for slot in sorted(set(slots.values())):
                primaries = cluster.primaries()
                owner = cluster.owner(slot)
                cluster.move(slot, primaries[(primaries.index(owner) + 1) % len(primaries)])

    return [disturbed(run, SLOTS_MOVE, keys, move)]


def primary_killed(run: CheckRun, cluster: PrivateCluster) -> list[PropertyFinding]:
    """Kill a primary, and have its replica take over.

    Replication is asynchronous, so each key of its slots may go back to a value that it had before, once
    and before the replica serves it. Everything else must be in order.
    """
    keys = run.keys("failover", KEYS)
    owners = {key: cluster.owner(slot) for key, slot in _slots(run, cluster, keys).items()}
    used = Counter(owners.values())
    primary = min(used, key=used.__getitem__)  # most calls are to succeed
    began_ns = ended_ns = 0

    def kill() -> None:
        nonlocal began_ns, ended_ns
        began_ns = clock.monotonic_ns()
        cluster.kill_primary(primary)
        ended_ns = clock.monotonic_ns()
        cluster.revive(primary)

    def explained(history: list[Operation]) -> list[Operation]:
        # Calls that were refused until the replica had taken over say nothing.
        kept = [one for one in history if one.outcome is not Outcome.FAIL]
        lossy = [key for key, owner in owners.items() if owner is primary]
        return with_losses(kept, lossy, (began_ns, ended_ns), evicts=run.evicts)

    return [disturbed(run, PRIMARY_KILLED, keys, kill, explained)]


def _slots(run: CheckRun, cluster: PrivateCluster, keys: Sequence[str]) -> dict[str, int]:
    """Return the slot of each key."""
    clients = run.crew
    assert isinstance(clients, Clients)  # noqa: S101 (faults are for processes)
    (names,) = clients.run(_final_keys, keys, to=clients.living[:1], threads=1)
    return {key: cluster.slot(name) for key, name in zip(keys, names, strict=True)}


def _final_keys(session: ClientSession, keys: Sequence[str]) -> list[str]:
    return [session.cache.make_key(key) for key in keys]


# -- what a failover may lose ----------------------------------------------------------------------


def with_losses(
    history: Sequence[Operation],
    keys: Collection[str],
    failover_ns: tuple[int, int],
    *,
    evicts: bool = False,
) -> list[Operation]:
    """Return the history, with the loss at each of the keys that explains it, where it needs one.

    `failover_ns`: when the failover began, and when the new primary served. A loss is the return to one
    earlier value, and is added as a write of that value between the two. So it explains no value that
    returns later, as one does that is written twice.
    """
    model = EvictingKey() if evicts else Key()
    own = by_key(history)
    losses = [_explaining_loss(own.get(key, []), failover_ns, model) for key in keys]
    return [*history, *(loss for loss in losses if loss is not None)]


def _explaining_loss(
    history: list[Operation], failover_ns: tuple[int, int], model: Model
) -> Operation | None:
    """Return the loss that makes one key's history legal, or one that may; `None` if it needs none."""
    if decide(history, model).verdict is not Verdict.ILLEGAL:
        return None
    unsure = None
    for loss in _possible_losses(history, failover_ns):
        found = sorted((*history, loss), key=lambda one: one.call_ns)
        verdict = decide(found, model).verdict
        if verdict is Verdict.LINEARIZABLE:
            return loss
        if verdict is Verdict.UNKNOWN:
            unsure = loss
    return unsure


def _possible_losses(
    history: Sequence[Operation], failover_ns: tuple[int, int]
) -> Iterator[Operation]:
    """Yield a return to each value that was written before, and read afterwards."""
    began_ns, ended_ns = failover_ns
    read = {one.result for one in history if one.kind is OperationKind.GET and one.end >= began_ns}
    written = {one.argument for one in history if one.may_write and one.call_ns <= ended_ns}
    for value in sorted(read & (written | {ABSENT}), key=repr):
        kind = OperationKind.DELETE if value is ABSENT else OperationKind.SET
        argument = None if value is ABSENT else value
        name = f"failover to {value}"
        yield Operation(name, kind, history[0].key, began_ns, ended_ns, argument)
