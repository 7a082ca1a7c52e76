"""Shrink an illegal history to the few operations that no order explains, whatever the others did.

Each step only weakens what the history claims. So the rest is illegal for a reason that the whole
history has too, never because something was left out:

- the end is cut off where the history first became illegal; operations in progress there may have
  taken effect or not;
- the beginning is cut off; the state there may be any (`model.unsure`), and operations in progress
  may have taken effect before or may still;
- an operation that changes nothing is left out;
- one that may change something is not shown. It may have taken effect while it was in progress,
  repeatedly or never. Where that explains too much, it may have taken effect once at most.

Both cuts are monotone, so the latest beginning is found by bisection. If zones proved that the history
is illegal, the shrinking begins with the few operations that they found: these contradict each other
whatever else was written, because each value is written once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from cacheapp.consistency.decision import decide
from cacheapp.consistency.history import ABSENT, Operation, OperationKind
from cacheapp.consistency.models import Model, State
from cacheapp.consistency.relaxation import Relaxation
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


_Test = Callable[[_Part], bool]
_BUDGET = 100_000  # of each search for the beginning
_LITTLE = 20_000  # of each search that leaves one operation out
_CONTRADICTIONS, _SHORT = 8, 4  # how many are tried at most, and the length that is good enough
_FEW = 300  # operations shown, below which each may take effect once instead of repeatedly


def shrink(
    operations: Sequence[Operation], model: Model, found: Found | None = None
) -> Counterexample:
    """Return the minimal counterexample in one key's illegal history.

    `found`: the decision on it, if known. Raise `ValueError` for a history that is not known
    to be illegal. Where the budget of a search runs out, operations that may be superfluous remain.
    """
    found = found or decide(operations, model)
    if found.blocked is None:
        raise ValueError(f"the history is {found.verdict}; expected an illegal one")
    if invented := _invented(operations):
        why = "no operation wrote this value"
        return Counterexample((invented,), (), len(operations) - 1, why)
    if found.core:
        core = _Part(found.core, (), model.initial)
        parts = [_shrunk(core, model), _fewest(core, lambda one: _illegal(one, model, _LITTLE))]
    else:
        parts = [_shortest(operations, model, found.blocked)]
    part = min(parts, key=lambda one: len(one.shown) + len(_origins(operations, one.shown)))
    shown = tuple(sorted(part.shown, key=lambda operation: operation.call_ns))
    origins = _origins(operations, shown)
    return Counterexample(shown, origins, len(operations) - len(shown), _why(part, model))


def _shortest(operations: Sequence[Operation], model: Model, blocked: Operation) -> _Part:
    """Shrink the first contradiction; where much of it is left, compare it with later ones."""
    part = best = _Part(tuple(operations), (), model.initial)
    for number in range(_CONTRADICTIONS):
        shrunk = _shrunk(_until(part, blocked), model)
        if not number or len(shrunk.shown) < len(best.shown):
            best = shrunk
        if len(best.shown) <= _SHORT or blocked.end == inf:
            break
        part = _from(_Part(tuple(operations), (), model.initial), int(blocked.end), model)
        found = search(part.shown, model, _BUDGET, part.initial, part.unsure)
        if found.blocked is None:
            break
        blocked = found.blocked
    return best


def _shrunk(part: _Part, model: Model) -> _Part:
    part = _latest_beginning(part, model)
    part = _fewest(part, lambda one: _illegal_repeatedly(one, model))
    if len(part.shown) <= _FEW:
        part = _fewest(part, lambda one: _illegal(one, model, _LITTLE))
    return part


def _why(part: _Part, model: Model) -> str:
    count = len(part.shown)
    if count == 1:
        said = "nothing that was called before its end explains this result"
    else:
        said = f"no order of these {count} calls explains their answers, whatever other calls did"
    from_any = _Part(part.shown, part.unsure, model.unsure)
    return (
        said if _illegal(from_any, model, _LITTLE) else f"the key was absent at first, and {said}"
    )


def _illegal(part: _Part, model: Model, budget: int) -> bool:
    found = search(part.shown, model, budget, part.initial, part.unsure)
    return found.verdict is Verdict.ILLEGAL


def _illegal_repeatedly(part: _Part, model: Model) -> bool:
    relaxed = Relaxation(model, part.shown, part.unsure, part.initial)
    return search(part.shown, relaxed, _BUDGET).verdict is Verdict.ILLEGAL


def _until(part: _Part, blocked: Operation) -> _Part:
    """Cut the end off; what was in progress there may have taken effect."""
    shown, unsure = [], [one for one in part.unsure if one.call_ns <= blocked.end]
    for operation in part.shown:
        if operation.call_ns > blocked.end:
            continue
        if operation.end <= blocked.end:
            shown.append(operation)
        elif operation.may_write:
            unsure.append(operation)
    return _Part(tuple(shown), tuple(unsure), part.initial)


def _from(part: _Part, moment: int, model: Model) -> _Part:
    """Return the part from a moment on, with an unknown state at its beginning."""
    shown = tuple(one for one in part.shown if one.call_ns >= moment)
    begun = [one for one in part.shown if one.call_ns < moment and one.may_write]
    unsure = [one for one in (*part.unsure, *begun) if one.end >= moment]
    return _Part(shown, tuple(unsure), model.unsure)


def _latest_beginning(whole: _Part, model: Model) -> _Part:
    """Return the shortest illegal end of the part, with any state at its beginning."""
    moments = sorted({operation.call_ns for operation in whole.shown})
    low, high, best = 0, len(moments), whole
    while low < high:  # illegal before `low`, not known to be illegal from `high` on
        middle = (low + high) // 2
        part = _from(whole, moments[middle], model)
        if _illegal(part, model, _BUDGET):
            low, best = middle + 1, part
        else:
            high = middle
    return best


def _fewest(part: _Part, illegal: _Test) -> _Part:
    """Leave out ever smaller groups of operations, until each remaining one is needed."""
    size = len(part.shown)
    while size := size // 2:
        # Late ones first: they are the least likely to be part of the contradiction.
        rest = sorted(part.shown, key=lambda one: -one.call_ns)
        for start in range(0, len(rest), size):
            fewer = _without(part, rest[start : start + size])
            if illegal(fewer):
                part = fewer
    return part


def _without(part: _Part, operations: Sequence[Operation]) -> _Part:
    gone = set(map(id, operations))
    shown = tuple(one for one in part.shown if id(one) not in gone)
    kept = tuple(one for one in operations if one.may_write)
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
