"""The sequential specification of one cache key: what it does with one caller at a time.

A state is `ABSENT` or the value. Two more states represent partial knowledge; they occur only at the
beginning of a part of a history: `PRESENT` (some value) and `ANY` (a value or none). The result of
an operation resolves them.

Timeouts are not modelled: in the histories that are judged, no entry reaches its deadline.
"""

import enum
from collections.abc import Callable, Hashable
from typing import Protocol

from cacheapp.consistency.history import ABSENT, Operation, OperationKind

State = Hashable


class Unsure(enum.Enum):
    """States with an unknown value."""

    PRESENT = "present"
    ANY = "any"


class _Impossible(enum.Enum):
    """What a step returns for a result that the state does not allow."""

    IMPOSSIBLE = "impossible"


PRESENT, ANY = Unsure.PRESENT, Unsure.ANY
IMPOSSIBLE = _Impossible.IMPOSSIBLE


class Model(Protocol):
    """A sequential specification, as the search uses it."""

    @property
    def initial(self) -> State:
        """The state at the beginning of a history."""

    @property
    def unsure(self) -> State:
        """The state at the beginning of a part of a history."""

    def step(self, state: State, operation: Operation) -> State:
        """Return the state after the operation; `IMPOSSIBLE` if this state does not allow its result."""


_SAYING = {OperationKind.GET, OperationKind.SET}  # of the others, `None` is an unknown result


class Key:
    """A key with an entry that only a call removes."""

    initial: State = ABSENT
    unsure: State = ANY

    def step(self, state: State, operation: Operation) -> State:
        """Return the state after the operation; `IMPOSSIBLE` if this state does not allow its result."""
        if operation.result is None and operation.kind not in _SAYING:
            return _forgotten(state, operation)
        return _STEPS[operation.kind](state, operation)


class EvictingKey:
    """A key with an entry that may also be evicted at any moment; a state is the set of possible ones."""

    initial: State = frozenset({ABSENT})
    unsure: State = frozenset({ANY})

    def step(self, state: State, operation: Operation) -> State:
        """Return the possible states; `IMPOSSIBLE` if none of the old ones allows the result."""
        assert isinstance(state, frozenset)  # noqa: S101 (for the type checker)
        key = Key()
        after = {key.step(one, operation) for one in state | {ABSENT}} - {IMPOSSIBLE}
        return frozenset(after) if after else IMPOSSIBLE


def _seen(state: State) -> State:
    """Return the state after a result that requires an entry."""
    if state is ABSENT:
        return IMPOSSIBLE
    return PRESENT if state is ANY else state


def _missed(state: State) -> State:
    """Return the state after a result that requires that there is none."""
    return ABSENT if state is ABSENT or state is ANY else IMPOSSIBLE


def _get(state: State, operation: Operation) -> State:
    if operation.result is ABSENT:
        return _missed(state)
    if state == operation.result or state is ANY or state is PRESENT:
        return operation.result
    return IMPOSSIBLE


def _set(_state: State, operation: Operation) -> State:
    return operation.argument


def _add(state: State, operation: Operation) -> State:
    if not operation.result:
        return _seen(state)
    return IMPOSSIBLE if _missed(state) is IMPOSSIBLE else operation.argument


def _delete(state: State, operation: Operation) -> State:
    if not operation.result:
        return _missed(state)
    return IMPOSSIBLE if _seen(state) is IMPOSSIBLE else ABSENT


def _look(state: State, operation: Operation) -> State:
    return _seen(state) if operation.result else _missed(state)


def _count(state: State, operation: Operation) -> State:
    if operation.result is ABSENT:
        return _missed(state)
    if state is ANY or state is PRESENT or _sum(state, operation) == operation.result:
        return operation.result
    return IMPOSSIBLE


def _sum(state: State, operation: Operation) -> int | None:
    """Return the sum, or `None` without a number to add to."""
    delta = operation.argument
    if not isinstance(state, int) or not isinstance(delta, int):
        return None
    return state - delta if operation.kind is OperationKind.DECR else state + delta


def _forgotten(state: State, operation: Operation) -> State:
    """Return the state after a call with an unknown result. It may be less exact than possible."""
    if operation.kind is OperationKind.DELETE:
        return ABSENT
    if operation.kind is OperationKind.ADD:
        return operation.argument if state is ABSENT else state
    if operation.kind in {OperationKind.INCR, OperationKind.DECR}:
        total = _sum(state, operation)
        return state if total is None else total
    return state


_STEPS: dict[OperationKind, Callable[[State, Operation], State]] = {
    OperationKind.GET: _get,
    OperationKind.SET: _set,
    OperationKind.ADD: _add,
    OperationKind.DELETE: _delete,
    OperationKind.TOUCH: _look,
    OperationKind.HAS_KEY: _look,
    OperationKind.INCR: _count,
    OperationKind.DECR: _count,
}
