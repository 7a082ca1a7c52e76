"""More broken backends that no workload was written for: each breaks one promise, and only now and then."""

import threading
import time
from typing import Any, ClassVar

from cacheapp.backends import DiskCache
from cacheapp.processes.waiting import pause

_ABSENT = object()


class CopiesBriefly(DiskCache):
    """Serves a read from a copy of its process for 20 ms."""

    _copies: ClassVar[dict[str, tuple[float, Any]]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the copy, or what is stored."""
        until, value = self._copies.get(key, (0.0, None))
        if time.monotonic() > until:
            value = super().get(key, _ABSENT, version)
            self._copies[key] = (time.monotonic() + 0.02, value)
        return default if value is _ABSENT else value


class RemembersMisses(DiskCache):
    """Does not look again for 10 ms for a key that it missed."""

    _missed: ClassVar[dict[str, float]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what is stored, or the remembered miss."""
        if time.monotonic() < self._missed.get(key, 0.0):
            return default
        value = super().get(key, _ABSENT, version)
        if value is _ABSENT:
            self._missed[key] = time.monotonic() + 0.01
            return default
        return value


class CountsDownInSteps(DiskCache):
    """Adds in one step, and subtracts in two."""

    def decr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Read, and write."""
        value = self.get(key, None, version)
        if value is None:
            raise ValueError(key)
        total: int = value - delta
        self.set(key, total, version=version)
        return total


class LiesAboutDeletes(DiskCache):
    """Says that every key that it deletes was there."""

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove the key."""
        super().delete(key, version)
        return True


class WritesBehind(DiskCache):
    """Acknowledges a write, and stores it some milliseconds later; its own process sees it at once."""

    _pending: ClassVar[dict[str, Any]] = {}

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Let a thread store the value."""
        if version is not None:
            super().set(key, value, timeout, version)
            return
        self._pending[key] = value

        def later() -> None:
            pause(0.003)
            DiskCache.set(self, key, value, timeout)
            self._pending.pop(key, None)

        threading.Thread(target=later).start()

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what waits to be stored, or what is stored."""
        if version is None and key in self._pending:
            return self._pending.get(key, default)
        return super().get(key, default, version)


class ExpiresLater(DiskCache):
    """Keeps entries for half a second too long."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the value."""
        super().set(key, value, None if timeout is None else timeout + 0.5, version)


class RenewsWhenItCounts(DiskCache):
    """Gives a counter five minutes again with each increment."""

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add, and touch."""
        total = super().incr(key, delta, version)
        self.touch(key, 300, version)
        return total


class AddsInStepsAsync(DiskCache):
    """Looks first and writes then, in its asynchronous method only."""

    async def aadd(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> bool:
        """Store the value if nothing is there."""
        if await self.aget(key, version=version) is not None:
            return False
        await self.aset(key, value, timeout, version)
        return True


class ReadsOldSnapshots(DiskCache):
    """Reads several keys from what it read of them 20 ms ago."""

    _seen: ClassVar[dict[tuple[Any, ...], tuple[float, dict[Any, Any]]]] = {}

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        """Return the old values, or those that are stored."""
        wanted = tuple(keys)
        until, found = self._seen.get(wanted, (0.0, {}))
        if time.monotonic() > until:
            found = super().get_many(wanted, version)
            self._seen[wanted] = (time.monotonic() + 0.02, found)
        return found


class TearsLargeValues(DiskCache):
    """Stores a value of more than 100 kB in two steps."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the first half, then all of it."""
        if isinstance(value, bytes) and len(value) > 100_000:
            super().set(key, value[: len(value) // 2], timeout, version)
        super().set(key, value, timeout, version)


class _Numbered:
    """A lock whose tokens are counted by its process."""

    _issued: ClassVar[int] = 0

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.token = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        """Acquire the lock, and count."""
        got: bool = self._lock.acquire(blocking=blocking)
        if got:
            _Numbered._issued += 1
            self.token = _Numbered._issued
        return got

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


class NumbersLocksItself(DiskCache):
    """Has a fencing token of each process, instead of one for all."""

    def lock(self, *args: Any, **how: Any) -> Any:
        """Return a lock with a number of this process."""
        return _Numbered(super().lock(*args, **how))


SUBTLE: dict[str, type] = {
    found.__name__: found
    for found in (
        CopiesBriefly,
        RemembersMisses,
        CountsDownInSteps,
        LiesAboutDeletes,
        WritesBehind,
        ExpiresLater,
        RenewsWhenItCounts,
        AddsInStepsAsync,
        ReadsOldSnapshots,
        TearsLargeValues,
        NumbersLocksItself,
    )
}
