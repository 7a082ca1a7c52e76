"""Decide whether one key's history has an order: by zones if they can, else by search."""

from collections.abc import Sequence

from cacheapp.consistency.history import Operation
from cacheapp.consistency.models import EvictingKey, Model
from cacheapp.consistency.search import BUDGET, Found, search
from cacheapp.consistency.zones import judge_zones


def decide(operations: Sequence[Operation], model: Model, budget: int = BUDGET) -> Found:
    """Return the verdict on one key's operations, which `by_key` has ordered.

    `budget`: steps of the search, which is needed for counters, unsure absence and repeated values.
    """
    return judge_zones(operations, evicts=isinstance(model, EvictingKey)) or search(
        operations, model, budget
    )
