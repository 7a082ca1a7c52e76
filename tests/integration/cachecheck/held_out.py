"""Broken backends that no workload was written for: they measure how much the check finds."""

import random
import threading
from typing import Any, ClassVar

from cacheapp.backends import DiskCache
from cacheapp.processes.waiting import pause
from tests.integration.cachecheck.held_out_subtle import SUBTLE


class DropsWrites(DiskCache):
    """Loses one write in twenty without a word."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the value, most of the time."""
        if random.random() > 0.05:
            super().set(key, value, timeout, version)


class DeletesLater(DiskCache):
    """Acknowledges a delete and does it some milliseconds later."""

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Let a thread remove the key."""
        there = self.has_key(key, version=version)

        def later() -> None:
            pause(0.004)
            DiskCache.delete(self, key, version)

        threading.Thread(target=later).start()
        return there


class CountsInBatches(DiskCache):
    """Adds up to four increments in memory before it stores them."""

    _waiting: ClassVar[dict[str, int]] = {}

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        """Add in memory, or in the store."""
        waiting = self._waiting.get(key, 0) + delta
        if waiting < 4:
            self._waiting[key] = waiting
            return self.get(key, 0, version) + waiting
        self._waiting[key] = 0
        return super().incr(key, waiting, version)


class ForgetsTheLastOfMany(DiskCache):
    """Leaves one key of several out, now and then."""

    def set_many(self, data: Any, timeout: Any = 300, version: int | None = None) -> list[Any]:
        """Store all of them, or all but one."""
        some = list(data.items())
        super().set_many(dict(some[:-1] if random.random() < 0.1 else some), timeout, version)
        return []


class LocksByLooking(DiskCache):
    """Locks that look for a mark, and then set it."""

    def lock(self, *args: Any, **_how: Any) -> Any:
        """Return the lock."""
        return _Looking(self, args[0])


class _Looking:
    token = None

    def __init__(self, cache: DiskCache, name: str) -> None:
        self._cache = cache
        self._name = f"{name}-mark"

    def acquire(self, *, blocking: bool = True) -> bool:
        while blocking and self._cache.get(self._name):
            pause(0.001)
        self._cache.set(self._name, 1, 20)
        return True

    def release(self) -> None:
        self._cache.delete(self._name)


class FillsByAdd(DiskCache):
    """Stores what was computed by `add`: right after a set, and stale after a delete."""

    def get_or_set(  # type: ignore[override]
        self, key: Any, default: Any, timeout: Any = 300, version: int | None = None
    ) -> Any:
        """Compute, and store where nothing is."""
        if (value := self.get(key, version=version)) is None:
            value = default()
            self.add(key, value, timeout, version)
        return value


_FOUND = (
    DropsWrites,
    DeletesLater,
    CountsInBatches,
    ForgetsTheLastOfMany,
    LocksByLooking,
    FillsByAdd,
)
HELD_OUT: dict[str, type] = {**{found.__name__: found for found in _FOUND}, **SUBTLE}
