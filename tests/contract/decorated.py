"""Functions under the decorators, and what clients in their own processes do with them."""

import os
from typing import Any

from django.core.cache import caches

from cacheapp.cached import cached
from cacheapp.throttle import Limit, limit


@cached(1000)
def who_computed(book: int) -> tuple[int, int]:
    """Return which process computed, and how many computations there were."""
    return os.getpid(), caches["default"].incr("runs")


def ask(_cache: Any, books: int) -> list[tuple[int, int]]:
    """Call the cached function for each book."""
    return [who_computed(book) for book in range(books)]


def invalidate(_cache: Any, book: int) -> bool:
    """Invalidate one book."""
    return who_computed.invalidate(book)


def attempt(
    _cache: Any, name: str, rate: int, per: float, costs: list[int], times: int
) -> list[Limit]:
    """Attempt again and again, with each of the costs in turn; return what became of it."""
    return [limit(name, rate, per, cost=cost) for _ in range(times) for cost in costs]
