"""Shrink an illegal history to the few operations that no order explains, whatever the others did.

Each step only weakens what the history claims. So the rest is illegal for a reason that the whole
history has too, never because something was left out:

- the end is cut off where the history first became illegal; operations in progress there may still
  take effect;
- the beginning is cut off; the state there may be any (`model.unsure`), and operations in progress
  may have taken effect before or may still;
- an operation that changes nothing is left out;
- one that may change something remains as an operation that may take effect at any time or never,
  and is not shown.

Both cuts are monotone, so the latest beginning is found by bisection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cacheapp.consistency.history import ABSENT, Operation, OperationKind
from cacheapp.consistency.models import Model, State
from cacheapp.consistency.search import Found, Verdict, search


@dataclass(frozen=True)
class Counterexample:
    """Operations of one key that no order explains.

    `origins`: earlier operations that wrote the values read here. `omitted`: how many operations of
    the history are not shown; none of them helps to explain it. `why`: a sentence.
    """

    operations: tuple[Operation, ...]
    origins: tuple[Operation, ...]
    omitted: int
    why: str


@dataclass(frozen=True)
class _Part:
    """A part of a history: the operations shown, those that may also take effect, the initial state."""

    shown: tuple[Operation, ...]
    unsure: tuple[Operation, ...]
    initial: State


_BUDGET = 100_000  # of each search during shrinking


def shrink(
    operations: Sequence[Operation], model: Model, found: Found | None = None
) -> Counterexample:
    """Return the minimal counterexample in one key's illegal history.

    `found`: the result of a search of it, if known. Raise `ValueError` for a history that is not known
    to be illegal. Where the budget of a search runs out, operations that may be superfluous remain.
    """
    found = found or search(operations, model)
    if found.blocked is None:
        raise ValueError(f"the history is {found.verdict}; expected an illegal one")
    if invented := _invented(operations):
        why = "no operation wrote this value"
        return Counterexample((invented,), (), len(operations) - 1, why)
    cut = _until(operations, found.blocked)
    part = _latest_beginning(cut, model, _BUDGET)
    part = _fewest(part, model, _BUDGET)
    shown = tuple(sorted(part.shown, key=lambda operation: operation.call_ns))
    origins = _origins(operations, shown)
    return Counterexample(shown, origins, len(operations) - len(shown), _why(len(shown)))


def _why(count: int) -> str:
    if count == 1:
        return "no state of the key allows this result"
    return f"no order of these {count} calls explains their answers, whatever other calls did"


def _illegal(part: _Part, model: Model, budget: int) -> bool:
    operations = [*part.shown, *part.unsure]
    return search(operations, model, budget, part.initial).verdict is Verdict.ILLEGAL


def _until(operations: Sequence[Operation], blocked: Operation) -> list[Operation]:
    kept = []
    for operation in operations:
        if operation.call_ns > blocked.end:
            continue
        if operation.end <= blocked.end:
            kept.append(operation)
        elif operation.may_write:
            kept.append(operation.unsure())
    return kept


def _from(operations: Sequence[Operation], moment: int, model: Model) -> _Part:
    """Return the part from a moment on, with an unknown state at its beginning."""
    shown = [one for one in operations if one.call_ns >= moment]
    unsure = [
        one.unsure()
        for one in operations
        if one.call_ns < moment and one.end >= moment and one.may_write
    ]
    return _Part(tuple(shown), tuple(unsure), model.unsure)


def _latest_beginning(operations: Sequence[Operation], model: Model, budget: int) -> _Part:
    """Return the shortest illegal end of the history, with any state at its beginning."""
    whole = _Part(tuple(operations), (), model.initial)
    moments = sorted({operation.call_ns for operation in operations})
    low, high, best = 0, len(moments), whole
    while low < high:  # illegal before `low`, not known to be illegal from `high` on
        middle = (low + high) // 2
        part = _from(operations, moments[middle], model)
        if _illegal(part, model, budget):
            low, best = middle + 1, part
        else:
            high = middle
    return best


def _fewest(part: _Part, model: Model, budget: int) -> _Part:
    """Leave out one operation after the other, until each remaining one is needed."""
    # Late ones first: they are the least likely to be part of the contradiction.
    for operation in sorted(part.shown, key=lambda one: -one.call_ns):
        fewer = _without(part, operation)
        if _illegal(fewer, model, budget):
            part = fewer
    silent = _Part(part.shown, (), part.initial)
    return silent if _illegal(silent, model, budget) else part


def _without(part: _Part, operation: Operation) -> _Part:
    shown = tuple(one for one in part.shown if one is not operation)
    kept = (operation.unsure(),) if operation.may_write else ()
    return _Part(shown, (*part.unsure, *kept), part.initial)


def _invented(operations: Sequence[Operation]) -> Operation | None:
    """Return the first read of a value that no operation can have written."""
    counting = {OperationKind.INCR, OperationKind.DECR}
    if any(one.kind in counting and one.end == float("inf") for one in operations):
        return None  # it may have made any sum
    written = {
        one.argument for one in operations if one.kind in {OperationKind.SET, OperationKind.ADD}
    }
    written |= {one.result for one in operations if one.kind in counting}
    for one in operations:
        if one.kind is OperationKind.GET and one.result is not ABSENT and one.result not in written:
            return one
    return None


def _origins(operations: Sequence[Operation], shown: Sequence[Operation]) -> tuple[Operation, ...]:
    read = {
        one.result for one in shown if one.kind is OperationKind.GET and one.result is not ABSENT
    }
    read -= {one.argument for one in shown if one.kind in {OperationKind.SET, OperationKind.ADD}}
    read -= {one.result for one in shown if one.kind in {OperationKind.INCR, OperationKind.DECR}}
    last = max((one.call_ns for one in shown), default=0)
    return tuple(
        one
        for one in operations
        if one not in shown
        and one.may_write
        and one.call_ns <= last
        and (
            one.argument in read
            if one.kind in {OperationKind.SET, OperationKind.ADD}
            else one.kind is not OperationKind.DELETE and one.result in read
        )
    )
