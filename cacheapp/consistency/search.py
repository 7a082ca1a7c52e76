"""Search for one order of the calls that explains every result.

Algorithm: Wing & Gong, "Testing and verifying concurrent objects" (1993), with the memoisation of Lowe,
"Testing for linearizability" (2017): a set of placed operations with the same state after it is not
tried again. Events are in a linked list, from which a placed operation is lifted, as in Horn &
Kroening (2015) and porcupine. The worst case is exponential in the number of concurrent operations,
hence the budget.

An operation that changes nothing is placed as soon as the state allows its result, and never later:
in any order that has it later, it can be moved to the front.

Invariant: the list holds, ordered by time, the calls and returns of the operations that are not
placed yet. Its first return bounds the choice: an operation that begins later cannot come before it.
"""

import enum
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cacheapp.consistency.history import Operation
from cacheapp.consistency.models import IMPOSSIBLE, Model, State

BUDGET = 1_000_000
"""Steps for one key, of some microseconds each."""


class Verdict(enum.StrEnum):
    """The verdict on a history."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "illegal"
    UNKNOWN = "unknown"
    """The budget ran out. This is never success."""


@dataclass(frozen=True)
class Found:
    """A verdict, its cost, and the operation that made the history illegal.

    `blocked`: the history became illegal at the return of this operation: without it and all later
    calls, there is an order. `core`: a few operations that prove it by themselves, if they are known.
    """

    verdict: Verdict
    steps: int
    blocked: Operation | None = None
    core: tuple[Operation, ...] = ()


class _Events:
    """Calls and returns in a doubly linked list of arrays; 0 is both head and end."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        times: list[tuple[float, int, int]] = []
        for number, operation in enumerate(operations):
            # Calls come first at the same instant: intervals are closed.
            times += [(operation.call_ns, 0, number), (operation.end, 1, number)]
        times.sort()
        size = len(times) + 1
        self.moment = [-math.inf, *(moment for moment, _, _ in times)]
        self.operation = [0, *(number for _, _, number in times)]
        self.is_return = [True, *(bool(kind) for _, kind, _ in times)]
        self.after = [*range(1, size), 0]
        self.before = [size - 1, *range(size - 1)]
        self.match = [0] * size
        calls: dict[int, int] = {}
        for event in range(1, size):
            number = self.operation[event]
            if self.is_return[event]:
                self.match[calls[number]] = event
            else:
                calls[number] = event

    def lift(self, event: int) -> None:
        """Remove a call and its return from the list."""
        after, before = self.after, self.before
        for one in (event, self.match[event]):
            after[before[one]] = after[one]
            before[after[one]] = before[one]

    def put_back(self, event: int) -> None:
        """Undo the latest `lift`, in the opposite order."""
        after, before = self.after, self.before
        for one in (self.match[event], event):
            after[before[one]] = one
            before[after[one]] = one


class _Memory:
    """The sets of operations that were placed before, with the state after them.

    Of two ways to the same state with the same answered operations, the one that used fewer unsure
    ones can continue in every way the other can, so only the minimal sets are stored.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, State], list[int]] = {}
        self.compared = 0
        """Comparisons so far: with many unsure operations they are most of the work."""

    def is_new(self, low: int, placed: int, used: int, state: State) -> bool:
        """Store the way; return False if one at least as good is known."""
        ways = self._known.setdefault((low, placed, state), [])
        self.compared += len(ways)
        if any(way & used == way for way in ways):
            return False
        ways.append(used)
        return True


def search(
    operations: Sequence[Operation],
    model: Model,
    budget: int = BUDGET,
    initial: State = None,
    optional: Sequence[Operation] = (),
) -> Found:
    """Search for an order of one key's operations that explains each result.

    Operations with the outcome info may be left out, or take effect at any time after their call.
    `initial`: the state at the beginning, if it is not that of the model. `optional`: operations that
    may be left out, or take effect between their call and their return.
    """
    sure = [one for one in operations if one.end != math.inf]
    unsure = [*(one for one in operations if one.end == math.inf), *optional]
    start = model.initial if initial is None else initial
    return _Search(sure, unsure, model, start).run(budget)


class _Choice(NamedTuple):
    """A placed operation, and what it takes to undo it. `unsure`: its number, or -1."""

    event: int
    unsure: int
    state: State
    low: int
    placed: int
    latest: float
    final: bool
    """Whether to place it later cannot help."""


class _Search:
    """The variables of a search.

    All operations with a number below `low` are placed; `placed` has a bit for each after them, and
    `used` one for each unsure operation. `latest`: the latest call of what is placed; an unsure
    operation that ended before cannot be placed any more.
    """

    def __init__(
        self, sure: Sequence[Operation], unsure: Sequence[Operation], model: Model, state: State
    ) -> None:
        self._sure, self._unsure = sure, unsure
        self._changes = [one.may_write for one in sure]
        self._step = model.step
        self._state = state
        self._events = _Events(sure)
        self._memory = _Memory()
        self._low = self._placed = self._used = self._tried = 0
        self._latest = -math.inf
        self._ends = sorted(one.end for one in unsure if one.end != math.inf)
        self._path: list[_Choice] = []

    def run(self, budget: int) -> Found:
        """Place one operation after the other; undo the last one if none fits."""
        events, operations = self._events, self._sure
        after, is_return = events.after, events.is_return
        blocked_at = steps = resume = 0
        event = after[0]
        while after[0]:
            if steps + self._tried + self._memory.compared >= budget:
                return Found(Verdict.UNKNOWN, steps)
            steps += 1
            if not is_return[event]:
                event = after[0] if self._try(event) else after[event]
            elif self._try_unsure(event, resume):
                event, resume = after[0], 0
            else:
                blocked_at = max(blocked_at, event)
                while self._path and self._path[-1].final:
                    self._take_back()
                if not self._path:
                    return Found(Verdict.ILLEGAL, steps, operations[events.operation[blocked_at]])
                event, resume = self._take_back()
        return Found(Verdict.LINEARIZABLE, steps)

    def _try(self, event: int) -> bool:
        """Place the operation that is called at `event`, if that is possible and new."""
        number = self._events.operation[event]
        reached = self._step(self._state, self._sure[number])
        if reached is IMPOSSIBLE:
            return False
        call = self._sure[number].call_ns
        final = not self._changes[number] and reached == self._state and not self._excludes(call)
        low, placed = self._low, self._placed | 1 << number - self._low
        if placed & 1:
            done = (~placed & placed + 1).bit_length() - 1
            low, placed = low + done, placed >> done
        if not final and not self._memory.is_new(low, placed, self._used, reached):
            return False
        self._path.append(
            _Choice(event, -1, self._state, self._low, self._placed, self._latest, final)
        )
        self._low, self._placed, self._state = low, placed, reached
        self._latest = max(self._latest, call)
        self._events.lift(event)
        return True

    def _excludes(self, call: float) -> bool:
        """Return whether some unsure operations could not come after one that is called then."""
        ends = self._ends
        return bool(ends) and bisect_left(ends, self._latest) < bisect_left(ends, call)

    def _try_unsure(self, event: int, resume: int) -> bool:
        """Place the next unsure operation that was called before the return `event`."""
        low, placed, latest = self._low, self._placed, self._latest
        for number in range(resume, len(self._unsure)):
            one = self._unsure[number]
            self._tried += 1
            if self._used >> number & 1 or one.call_ns > self._events.moment[event]:
                continue
            if one.end < latest:
                continue
            reached = self._step(self._state, one)
            used = self._used | 1 << number
            if reached is not IMPOSSIBLE and self._memory.is_new(low, placed, used, reached):
                self._path.append(
                    _Choice(event, number, self._state, low, placed, latest, final=False)
                )
                self._used, self._state = used, reached
                self._latest = max(latest, one.call_ns)
                return True
        return False

    def _take_back(self) -> tuple[int, int]:
        """Undo the last choice; return the event to continue with, and the next unsure operation."""
        event, unsure, self._state, self._low, self._placed, self._latest, _final = self._path.pop()
        if unsure >= 0:
            self._used ^= 1 << unsure
            return event, unsure + 1
        self._events.put_back(event)
        return self._events.after[event], 0
