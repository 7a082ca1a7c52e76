import re
from collections.abc import Callable

import pytest

from cacheapp.cachecheck.examine import SYNC
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads import (
    abandoned,
    counting,
    deadlines,
    faults,
    fills,
    locking,
    outages,
    registers,
    values,
    versions,
)
from cacheapp.consistency.history import Operation, Outcome
from cacheapp.consistency.timeline import draw
from cacheapp.processes.servers import RedisServer
from tests.integration.cachecheck.conftest import Examine, Lab, Workload

Outage = Callable[[CheckRun, RedisServer], list[PropertyFinding]]

CAUGHT: list[tuple[str, Workload, str]] = [
    ("LosesUpdates", counting.counters, counting.SUMS),
    ("CountsDownInSteps", counting.counters, counting.SUMS),
    ("ReadsStale", registers.registers, registers.ORDER),
    ("ReadsStale", values.many, values.MANY),
    ("ReadsStale", faults.stopped, faults.STOPPED),
    ("ReadsBack", registers.registers, registers.OWN),
    ("ReadsBack", registers.registers, registers.FORWARD),
    ("HasTwoWinners", counting.winners, counting.WINNER),
    ("TearsValues", values.values, values.WHOLE),
    ("GapsWhileWriting", values.values, values.WHOLE),
    ("GapsWhileWriting", values.many, values.MANY),
    ("Resurrects", registers.registers, registers.ORDER),
    ("StoresStaleFills", fills.stale_fills, fills.FRESH),
    ("ComputesTwice", fills.cold_keys, fills.ONCE),
    ("MovesInSteps", versions.versions, versions.MOVE),
    ("LocksUnfenced", locking.locks, locking.FENCED),
    ("LocksForMany", locking.locks, locking.EXCLUSIVE),
    ("LocksBriefly", locking.locks, locking.EXCLUSIVE),
    ("InvalidatesByThread", faults.stopped, faults.STOPPED),
    ("ClearsNothing", faults.cleared, faults.CLEARED),
    ("TripsOverTheDead", faults.killed, faults.KILLED),
    ("LocMem", faults.cold, faults.COLD),
    ("LocMem", faults.forked, faults.FORKED),
]


@pytest.mark.parametrize(
    ("alias", "workload", "broken"), CAUGHT, ids=[f"{one[0]}: {one[2]}" for one in CAUGHT]
)
def test_a_broken_backend_is_caught(
    examine: Examine, alias: str, workload: Workload, broken: str
) -> None:
    for _ in range(20):  # a race is found when it happens, in most of them at once
        found = examine(alias, workload)[broken]
        if found.verdict is PropertyVerdict.BROKEN:
            break
    assert found.verdict is PropertyVerdict.BROKEN, found
    assert found.why
    assert not found.operations or draw(found.operations)


OUTAGES: list[tuple[str, Outage, str]] = [
    ("SwallowsLostWrites", outages.cut, outages.CUT),
    ("ServesCopiesWhenDown", outages.restarted, outages.RESTARTED),
]


@pytest.mark.parametrize(
    ("alias", "outage", "broken"), OUTAGES, ids=[f"{one[0]}: {one[2]}" for one in OUTAGES]
)
def test_a_backend_that_lies_while_its_server_is_disturbed_is_caught(
    lab: Lab, examine: Examine, alias: str, outage: Outage, broken: str
) -> None:
    def disturbed(run: CheckRun) -> list[PropertyFinding]:
        return outage(run, lab.redis)

    test_a_broken_backend_is_caught(examine, alias, disturbed, broken)


def test_a_fault_after_which_no_call_is_answered_proves_nothing(lab: Lab, examine: Examine) -> None:
    def dead(run: CheckRun) -> list[PropertyFinding]:
        def answered(history: list[Operation]) -> list[Operation]:
            return [one for one in history if one.outcome is Outcome.OK]

        return [outages.disturbed(run, "dead", run.keys("dead", 3), lab.redis.kill, answered)]

    try:
        found = examine("Redis", dead)["dead"]
    finally:
        lab.redis.start()
    assert found.verdict is PropertyVerdict.UNKNOWN, found
    assert found.why.startswith("after the fault no read of 3 of 3 keys was answered; ")


def test_a_lease_that_outlives_its_holder_is_caught(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abandoned, "WITHIN_S", 1.0)
    found = examine("LeavesItsLease", abandoned.abandoned)[abandoned.ABANDONED]
    assert found.verdict is PropertyVerdict.BROKEN, found
    assert "1 s after the death of the computing client the others still waited" in found.why


def test_late_expiry_is_measured(examine: Examine) -> None:
    late_ms = 0
    for _ in range(20):  # where no session was running at the end, a read may have come before
        found = examine("ExpiresLate", deadlines.deadlines)
        if {one.verdict for one in found.values()} == {PropertyVerdict.BROKEN}:
            late_ms = int(found[deadlines.EXPIRY].figure.split()[0])
            assert late_ms < 210  # a read that begins later finds nothing
        if late_ms > 100:
            break
    assert late_ms > 100, found
    assert "still at the end" in found[deadlines.KEPT].why
    assert "still at the end" in found[deadlines.TOUCH].why


def test_only_the_async_twin_is_accused_where_only_it_is_wrong(examine: Examine) -> None:
    sync = examine("CountsBadlyAsync", counting.counters)
    twin = examine("CountsBadlyAsync", counting.counters, use_async=True)
    assert sync[counting.SUMS].verdict is PropertyVerdict.HOLDS
    assert twin[counting.SUMS].verdict is PropertyVerdict.BROKEN


def test_a_lost_update_is_shown_by_two_increments_with_one_sum(examine: Examine) -> None:
    for _ in range(20):  # where one lasted for many others, they are a part of the proof: 3 of 100
        found = examine("LosesUpdates", counting.counters)[counting.SUMS]
        if len(found.operations) == 2:
            break
    assert len(found.operations) == 2
    assert "returned the same sum as another one" in found.why
    assert int(found.figure.split()[0]) > 0


def test_an_evicting_cache_is_not_accused_of_misses_where_it_may_evict(examine: Examine) -> None:
    accused = examine("GapsWhileWriting", values.many)
    excused = examine("GapsWhileWriting", values.many, evicts=True)
    assert accused[values.MANY].verdict is PropertyVerdict.BROKEN
    assert excused[values.MANY].verdict is PropertyVerdict.HOLDS


RIGHT = {
    **{name: workload for name, workload in SYNC.items() if name != "expiry"},
    "stop": faults.stopped,
    "kill": faults.killed,
    "abandon": abandoned.abandoned,
    "cold": faults.cold,
    "fork": faults.forked,
    "clear": faults.cleared,
}


@pytest.mark.parametrize("workload", RIGHT.values(), ids=list(RIGHT))
def test_a_right_backend_is_not_accused(examine: Examine, workload: Workload) -> None:
    found = examine("Right", workload)
    assert {one.verdict for one in found.values()} == {PropertyVerdict.HOLDS}, found


@pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
def test_a_right_backend_keeps_its_deadlines(examine: Examine, *, use_async: bool) -> None:
    for _ in range(5):  # a key whose life no session was running in was not read: no verdict
        found = examine("Right", deadlines.deadlines, use_async=use_async)
        if all(one.verdict is not PropertyVerdict.UNKNOWN for one in found.values()):
            break
    assert {one.verdict for one in found.values()} == {PropertyVerdict.HOLDS}, found


@pytest.mark.parametrize("outage", [outages.cut, outages.restarted])
def test_a_redis_that_is_disturbed_is_not_accused(
    lab: Lab, examine: Examine, outage: Outage
) -> None:
    before = lab.redis.pid
    for seconds in (1.0, 5.0, 25.0):  # on a busy machine few calls are answered in a second
        found = examine("Redis", lambda run: outage(run, lab.redis), seconds=seconds)
        (only,) = found.values()
        assert only.verdict in (PropertyVerdict.HOLDS, PropertyVerdict.UNKNOWN), only
        enough = re.search(r"\d+ of \d{3,} unanswered", only.figure)
        if enough and only.verdict is PropertyVerdict.HOLDS:
            break
    else:
        pytest.fail(f"too few calls were answered: {only}")
    assert (lab.redis.pid != before) is (outage is outages.restarted)


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (registers.registers, registers.ORDER),
        (counting.counters, counting.SUMS),
        (counting.winners, counting.WINNER),
        (fills.cold_keys, fills.ONCE),
        (values.many, values.MANY),
        (locking.locks, locking.EXCLUSIVE),
        (faults.killed, faults.KILLED),
    ],
)
def test_a_store_that_is_down_is_unknown_never_a_success(
    examine: Examine, workload: Workload, name: str
) -> None:
    found = examine("Down", workload)[name]
    assert found.verdict is PropertyVerdict.UNKNOWN, found
    assert found.why


def test_a_backend_without_locks_is_not_accused(examine: Examine) -> None:
    found = examine("LocMem", locking.locks)
    assert {one.verdict for one in found.values()} == {PropertyVerdict.NOT_APPLICABLE}
