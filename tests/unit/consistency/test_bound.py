"""Which reads are older than a bound, and what proves nothing."""

from collections.abc import Hashable

from cacheapp.consistency.bound import too_old
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome

_GET, _SET, _DELETE = OperationKind.GET, OperationKind.SET, OperationKind.DELETE


def _write(value: int, began: int, ended: int | None, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation("w", _SET, "key", began, ended, value, None, outcome)


def _read(value: Hashable, began: int) -> Operation:
    return Operation("r", _GET, "key", began, began + 1, None, value)


def _delete(began: int, ended: int) -> Operation:
    return Operation("w", _DELETE, "key", began, ended, None, True)  # noqa: FBT003 (its result)


_FIRST, _SECOND = _write(1, 0, 10), _write(2, 20, 30)


def test_a_read_beyond_the_bound_is_found_with_its_proof() -> None:
    (found,) = too_old([_FIRST, _SECOND, _read(1, 130), _read(1, 131), _read(2, 500)], 100)
    assert (found.read, found.newer, found.written) == (_read(1, 131), _SECOND, (_FIRST,))
    assert found.age_ns == 101


def test_concurrent_writes_and_unknown_outcomes_prove_nothing() -> None:
    for other in (_write(2, 10, 30), _write(2, 20, None, Outcome.INFO)):
        assert not too_old([_FIRST, other, _read(1, 1000)], 100)
    assert not too_old([_write(1, 0, 10, Outcome.INFO), _SECOND, _read(1, 1000)], 100)


def test_a_miss_is_too_old_unless_something_may_have_removed_the_entry() -> None:
    history = [_FIRST, _read(ABSENT, 1000)]
    assert too_old(history, 100)
    assert not too_old(history, 100, evicts=True)
    assert not too_old([*history, _delete(900, 950)], 100)
    assert not too_old([*history, _delete(5, 50)], 100)
    assert too_old([_delete(0, 1), _SECOND, _read(ABSENT, 1000)], 100)


def test_a_deleted_value_is_too_old() -> None:
    assert too_old([_FIRST, _delete(20, 30), _read(1, 1000)], 100)
    assert not too_old([_FIRST, _delete(20, 30), _read(1, 130)], 100)
