"""What the failover of a cluster excuses: one return of a key of the dead primary, and nothing else."""

from collections.abc import Hashable

import pytest

from cacheapp.cachecheck.workloads.cluster_faults import with_losses
from cacheapp.consistency.history import ABSENT, Operation, OperationKind
from cacheapp.consistency.judge import judge
from cacheapp.consistency.search import Verdict

FAILOVER = (50, 60)


def write(call_ns: int, value: int | None, key: str = "key") -> Operation:
    kind = OperationKind.DELETE if value is None else OperationKind.SET
    return Operation("writer", kind, key, call_ns, call_ns + 2, value)


def read(call_ns: int, value: Hashable, key: str = "key") -> Operation:
    return Operation("reader", OperationKind.GET, key, call_ns, call_ns + 2, None, value)


def verdict(*calls: Operation, lossy: tuple[str, ...] = ("key",)) -> Verdict:
    return judge(with_losses(calls, lossy, FAILOVER)).verdict


BEFORE = (write(10, 1), write(20, 2), read(30, 2))


def test_without_a_loss_the_history_is_left_as_it_is() -> None:
    calls = [*BEFORE, read(70, 2), write(80, 3), read(90, 3)]
    assert with_losses(calls, ["key", "unused"], FAILOVER) == calls


@pytest.mark.parametrize("value", [1, ABSENT], ids=["an older value", "none"])
def test_a_key_of_the_dead_primary_may_have_gone_back_once(value: Hashable) -> None:
    assert verdict(*BEFORE, read(70, value), write(80, 3), read(90, 3)) is Verdict.LINEARIZABLE


def test_a_delete_may_be_lost_too() -> None:
    assert verdict(*BEFORE, write(40, None), read(45, ABSENT), read(70, 2)) is Verdict.LINEARIZABLE


def test_a_loss_at_a_key_of_another_primary_is_accused() -> None:
    assert verdict(*BEFORE, read(70, 1), lossy=("other",)) is Verdict.ILLEGAL


@pytest.mark.parametrize(
    "later",
    [
        [read(70, 2), read(80, 1)],
        [write(70, 3), read(80, 1)],
        [read(70, 1), read(80, 2), read(90, 1)],
        [read(70, 7)],
    ],
    ids=["after a read", "after a write", "twice", "never written"],
)
def test_an_old_value_that_returns_after_the_failover_is_accused(later: list[Operation]) -> None:
    """As it does if a client repeats at the new primary a write that the old one had executed."""
    assert verdict(*BEFORE, *later) is Verdict.ILLEGAL
