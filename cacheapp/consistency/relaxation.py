"""A key that operations left out of a history may have changed: the weakest claim about them.

Each of them may have taken effect at any moment between its call and its return, any number of times, or
never. So a history that is illegal even so is illegal whatever they did. In contrast to operations of which
each takes effect once at most, this needs no search: the possible states are a set.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

from cacheapp.consistency.history import Operation
from cacheapp.consistency.models import IMPOSSIBLE, Model, State

_MOST_STATES = 200  # beyond that, any state is assumed


class Relaxation:
    """A model of the operations that are shown, beside those that are left out."""

    def __init__(
        self,
        model: Model,
        shown: Sequence[Operation],
        left_out: Sequence[Operation],
        initial: State,
    ) -> None:
        self._model = model
        self._changes = sorted(left_out, key=lambda one: one.call_ns)
        self._reachable: dict[tuple[State, int, float], frozenset[State]] = {}
        self._ends: list[float] = []
        self._latest_calls: list[float] = [-inf]
        for one in sorted(shown, key=lambda one: one.end):
            self._ends.append(one.end)
            self._latest_calls.append(max(self._latest_calls[-1], one.call_ns))
        self.initial: State = frozenset({initial})
        self.unsure: State = frozenset({model.unsure})

    def step(self, state: State, operation: Operation) -> State:
        """Return the possible states; `IMPOSSIBLE` if none of those before allows the result."""
        assert isinstance(state, frozenset)  # noqa: S101 (for the type checker)
        called = sum(one.call_ns <= operation.end for one in self._changes)
        since = self._since(operation)
        known = self._reachable.get((state, called, since))
        if known is None:
            changes = [one for one in self._changes[:called] if one.end >= since]
            known = self._reachable[state, called, since] = self._reach(state, changes)
        after = {self._model.step(one, operation) for one in known} - {IMPOSSIBLE}
        return frozenset(after) if after else IMPOSSIBLE

    def _since(self, operation: Operation) -> float:
        """Return the latest call of what certainly precedes the operation, as do changes that ended before."""
        return self._latest_calls[bisect_left(self._ends, operation.call_ns)]

    def _reach(self, states: frozenset[State], changes: Sequence[Operation]) -> frozenset[State]:
        """Return the states that the changes lead to, in any number and order."""
        found, fresh = set(states), set(states)
        while fresh:
            reached = {self._model.step(one, change) for one in fresh for change in changes}
            fresh = reached - found - {IMPOSSIBLE}
            found |= fresh
            if len(found) > _MOST_STATES:
                return frozenset({self._model.unsure})
        return frozenset(found)
