"""Caches of so many keys that keep no values: exactly what each policy would do. Pure.

`ask(key)` returns whether the key was there, and lets it in where it was not.
"""

from collections import OrderedDict
from typing import Protocol


class Policy(Protocol):
    """A cache under one policy."""

    def ask(self, key: int) -> bool:
        """Return whether the key was there; it is, afterwards."""
        ...


class Fifo:
    """Evicts the key that came in first, however often it was asked for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._keys: OrderedDict[int, None] = OrderedDict()

    def ask(self, key: int) -> bool:
        """Return whether the key was there."""
        if key in self._keys:
            self._used(key)
            return True
        if len(self._keys) >= self._room:
            self._keys.popitem(last=False)
        self._keys[key] = None
        return False

    def _used(self, key: int) -> None:
        """Take note of a hit: nothing."""


class Lru(Fifo):
    """Evicts the key that was not asked for for the longest time: a hit counts as coming in."""

    def _used(self, key: int) -> None:
        self._keys.move_to_end(key)


class Sieve:
    """Evicts the oldest key that was not asked for since a hand last passed over it.

    Algorithm: Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is simpler than LRU" (NSDI 2024). Keys
    stand in the order in which they came in, and do not move. The hand goes from the oldest to the
    newest, and then from the oldest again; it takes the mark of a key that was asked for, and
    evicts the first one without a mark. A step is O(1) on average, and O(room) at worst.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._marked: dict[int, bool] = {}
        self._newer: dict[int, int | None] = {}
        self._older: dict[int, int | None] = {}
        self._oldest: int | None = None
        self._newest: int | None = None
        self._hand: int | None = None

    def ask(self, key: int) -> bool:
        """Return whether the key was there."""
        if key in self._marked:
            self._marked[key] = True
            return True
        if len(self._marked) >= self._room:
            self._evict()
        self._append(key)
        return False

    def _append(self, key: int) -> None:
        self._marked[key] = False
        self._newer[key], self._older[key] = None, self._newest
        if self._newest is None:
            self._oldest = key
        else:
            self._newer[self._newest] = key
        self._newest = key

    def _evict(self) -> None:
        at = self._oldest if self._hand is None else self._hand
        assert at is not None  # noqa: S101 (it evicts only where it is full)
        while self._marked[at]:
            self._marked[at] = False
            following = self._newer[at]
            at = self._oldest if following is None else following
            assert at is not None  # noqa: S101 (the same)
        self._hand = self._newer[at]
        self._remove(at)

    def _remove(self, key: int) -> None:
        del self._marked[key]
        newer, older = self._newer.pop(key), self._older.pop(key)
        if older is None:
            self._oldest = newer
        else:
            self._newer[older] = newer
        if newer is None:
            self._newest = older
        else:
            self._older[newer] = older
