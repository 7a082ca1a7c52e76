"""Recognise values that any thread may serialize, because that runs no code but the serializer's.

Serializing another value may run code of its class: a QuerySet queries the database, over the
connection of the current thread.
"""

from collections.abc import Iterable
from typing import Any

_SCALARS = frozenset([str, bytes, int, float, bool, type(None)])
_SEQUENCES = frozenset([list, tuple, set, frozenset])
_MOST_PARTS = 1000  # a larger value is not examined further


def are_plain(values: Iterable[Any]) -> bool:
    """Return True if all values consist of built-in types only, and are not too large to find out."""
    todo = list(values)
    examined = 0
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind in _SEQUENCES:
            parts = len(value)
        elif kind is dict:
            parts = 2 * len(value)
        else:
            return False
        examined += 1 + parts  # the 1 ends a cycle
        if examined > _MOST_PARTS:
            return False
        todo.extend(value)
        if kind is dict:
            todo.extend(value.values())
    return True
