"""Which reads are older than a bound, and what proves nothing."""

import dataclasses
from collections.abc import Hashable

from cacheapp.consistency.bound import too_old, went_back
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


def _on(machine: str, one: Operation) -> Operation:
    return dataclasses.replace(one, process=machine)


def _machine(one: Operation) -> str:
    return one.process


def test_a_machine_knows_what_it_has_written_and_read() -> None:
    history = [_on("a", _FIRST), _on("b", _SECOND), _on("a", _read(2, 40)), _on("a", _read(1, 50))]
    (found,) = went_back(history, _machine)
    assert (found.read.call_ns, found.newer.argument, found.age_ns) == (50, 2, 9)
    # Another machine may still have the old value, and so may one that read the new one at the same time.
    assert not went_back([*history[:3], _on("b", _read(1, 25)), _on("c", _read(1, 50))], _machine)
    assert not went_back([*history[:3], _on("a", _read(1, 41))], _machine)
    own = [_on("a", _FIRST), _on("a", _SECOND), _on("a", _read(1, 31))]
    assert [one.read.call_ns for one in went_back(own, _machine)] == [31]
    assert not went_back([*own[:2], _on("a", _read(ABSENT, 31))], _machine, evicts=True)


def test_a_write_without_a_reply_is_known_if_it_was_read_before_it_failed() -> None:
    lost = _on("a", _write(2, 20, 60, Outcome.INFO))
    old = _on("a", _read(1, 70))
    seen_before, seen_later = _on("b", _read(2, 40)), _on("b", _read(2, 60))
    assert went_back([_on("a", _FIRST), lost, seen_before, old], _machine)
    assert not went_back([_on("a", _FIRST), lost, seen_later, old], _machine)
    assert not went_back([_on("a", _FIRST), lost, old], _machine)
    other = _on("c", old)
    assert not went_back([_on("a", _FIRST), lost, seen_before, other], _machine)
