"""What a `touch` that returned False says about the cache: only in time it says that it is broken."""

from types import SimpleNamespace
from typing import Any

import pytest

from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyVerdict
from cacheapp.cachecheck.workloads.deadlines import TOUCH, Seen, deadlines
from cacheapp.consistency.history import Operation, OperationKind

SECOND_NS = 10**9


def refused_after(seconds: float, key: str) -> list[Operation]:
    ended_ns = int(seconds * SECOND_NS)
    return [
        Operation("p1", OperationKind.SET, key, call_ns=0, return_ns=1000, argument=1),
        Operation("p1", OperationKind.TOUCH, key, call_ns=2000, return_ns=ended_ns, result=False),
    ]


@pytest.mark.parametrize(
    ("seconds", "verdict", "why"),
    [
        (0.1, PropertyVerdict.BROKEN, "touch returned False for an existing key"),
        (2.5, PropertyVerdict.UNKNOWN, "expired before touch was called"),
    ],
    ids=["in time", "late"],
)
def test_a_touch_that_came_late_accuses_no_cache(
    seconds: float, verdict: PropertyVerdict, why: str
) -> None:
    names = [f"token-deadline-{number}" for number in range(4)]
    *found_in_time, lengthened = names
    seen = [Seen(name, SECOND_NS, SECOND_NS - 1, 2 * SECOND_NS) for name in found_in_time]
    crew: Any = SimpleNamespace(run=lambda *_, **__: [[*seen, Seen(lengthened, None, 5, 6)]])
    history = refused_after(seconds, lengthened)
    journals: Any = SimpleNamespace(collect=lambda: history, errors=[])
    run = CheckRun(crew, journals, "token", abilities=frozenset(["set", "touch", "incr"]))
    finding = next(one for one in deadlines(run) if one.property == TOUCH)
    assert finding.verdict is verdict
    assert why in finding.why
