"""Judge a whole history key by key: it is linearizable if and only if each key's part is.

This is the locality of Herlihy & Wing (1990).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cacheapp.consistency.counterexample import Counterexample, shrink
from cacheapp.consistency.decision import decide
from cacheapp.consistency.history import Operation, OperationKind, by_key
from cacheapp.consistency.models import EvictingKey, Key, Model
from cacheapp.consistency.search import BUDGET, Verdict


@dataclass(frozen=True)
class Judgement:
    """The verdict on a history: illegal if one key is, else unknown if one key is."""

    verdict: Verdict
    operations: int
    illegal: tuple[str, ...]
    unknown: tuple[str, ...]
    counterexample: Counterexample | None
    """The easiest to read among those of the first illegal keys."""


_SHRUNK = 6  # keys with counterexamples that are compared
_PLAIN = {OperationKind.GET, OperationKind.SET}


def _effort(one: Counterexample) -> tuple[int, int]:
    """Return how hard a counterexample is to read: the number of calls, then of unusual ones."""
    unusual = sum(operation.kind not in _PLAIN for operation in one.operations)
    return len(one.operations), unusual


def judge(
    operations: Iterable[Operation], *, evicts: bool = False, budget: int = BUDGET
) -> Judgement:
    """Judge a history of any number of keys. `evicts`: entries may be evicted at any moment.

    `budget`: steps of the search for each key.
    """
    model: Model = EvictingKey() if evicts else Key()
    keys = by_key(operations)
    found = {key: decide(own, model, budget) for key, own in keys.items()}
    illegal = tuple(key for key, one in found.items() if one.verdict is Verdict.ILLEGAL)
    unknown = tuple(key for key, one in found.items() if one.verdict is Verdict.UNKNOWN)
    worst = Verdict.ILLEGAL if illegal else Verdict.UNKNOWN if unknown else Verdict.LINEARIZABLE
    shrunk = [shrink(keys[key], model, found[key]) for key in illegal[:_SHRUNK]]
    easiest = min(shrunk, key=_effort, default=None)
    return Judgement(worst, sum(map(len, keys.values())), illegal, unknown, easiest)
