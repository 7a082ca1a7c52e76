"""Backends that break one promise each, on top of one that keeps them all."""

import asyncio
import contextlib
import os
import random
import threading
from pathlib import Path
from typing import Any, ClassVar

from django.core.cache.backends.base import BaseCache

from cacheapp.backends import DiskCache
from cacheapp.processes.waiting import pause

_A_MOMENT_S = 0.002


class LosesUpdates(DiskCache):
    """Counts by reading and writing."""

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        """Add, unless another one adds meanwhile."""
        value = self.get(key, version=version)
        if value is None:
            raise ValueError(key)
        self.set(key, value + delta, version=version)
        return value + delta


class ReadsStale(DiskCache):
    """Keeps a copy of each key per process, for ever."""

    _copies: ClassVar[dict[str, Any]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the copy."""
        if key not in self._copies:
            value = super().get(key, default, version)
            if value is default:
                return default
            self._copies[key] = value
        return self._copies[key]

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        """Return the copies."""
        return {key: value for key in keys if (value := self.get(key, None, version)) is not None}


class ReadsBack(DiskCache):
    """Answers from an old copy now and then: reads go back, behind the own write too."""

    _old: ClassVar[dict[str, Any]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what is there, or what was there when it was first read."""
        value = super().get(key, default, version)
        if value is not default:
            self._old.setdefault(key, value)
        return self._old[key] if key in self._old and random.random() < 0.3 else value


class HasTwoWinners(DiskCache):
    """Looks first and writes then."""

    def add(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> bool:
        """Store the value if nothing was there a moment ago."""
        if self.has_key(key, version=version):
            return False
        pause(_A_MOMENT_S)
        self.set(key, value, timeout, version)
        return True


class TearsValues(DiskCache):
    """Writes a value in two parts."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the first half, then all of it."""
        if isinstance(value, bytes):
            super().set(key, value[: len(value) // 2], timeout, version)
        super().set(key, value, timeout, version)


class GapsWhileWriting(DiskCache):
    """Removes the old value before it writes the new one."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Delete, then store."""
        self.delete(key, version=version)
        super().set(key, value, timeout, version)

    def set_many(self, data: Any, timeout: Any = 300, version: int | None = None) -> list[Any]:
        """Store one after the other."""
        for key, value in data.items():
            self.set(key, value, timeout, version)
        return []


class Resurrects(DiskCache):
    """Touches by reading and writing: a key that is deleted meanwhile comes back."""

    def touch(self, key: Any, timeout: Any = 300, version: int | None = None) -> bool:
        """Store again what was there."""
        value = self.get(key, version=version)
        if value is None:
            return False
        pause(5 * _A_MOMENT_S)
        self.set(key, value, timeout, version=version)
        return True


class ExpiresLate(DiskCache):
    """Keeps entries longer, ignores `touch`, and forgets the deadline when it counts."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store for longer."""
        super().set(key, value, timeout + 0.2, version)

    def touch(self, key: Any, _timeout: Any = 300, version: int | None = None) -> bool:
        """Do nothing."""
        return self.has_key(key, version=version)

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        """Add, and let it live for ever."""
        total = super().incr(key, delta, version)
        super().set(key, total, None, version)
        return total


class StoresStaleFills(DiskCache):
    """Computes once, under a lock, and stores the value whatever happened meanwhile."""

    def get_or_set(  # type: ignore[override]
        self, key: Any, default: Any, timeout: Any = 300, version: int | None = None
    ) -> Any:
        """Return the value, computed by one."""
        with self.lock(f"{key}-computing"):
            if (value := self.get(key, version=version)) is None:
                value = default()
                self.set(key, value, timeout, version)
            return value


class ComputesTwice(DiskCache):
    """Has Django's own `get_or_set`."""

    def get_or_set(self, *args: Any, **kwargs: Any) -> Any:
        """Let everybody compute."""
        return BaseCache.get_or_set(self, *args, **kwargs)


class MovesInSteps(DiskCache):
    """Has Django's own `incr_version`: get, set, delete."""

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Copy, then delete."""
        return BaseCache.incr_version(self, key, delta, version)


class _Unfenced:
    """A lock that holds, with the same number for every holder."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.token = 1
        self.acquire, self.release = lock.acquire, lock.release


class LocksUnfenced(DiskCache):
    """Locks without fencing."""

    def lock(self, *args: Any, **kwargs: Any) -> Any:
        """Return a lock whose token does not grow."""
        return _Unfenced(super().lock(*args, **kwargs))


class _Open:
    """A lock of one process: a file is looked for first, and made then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.token = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait until nobody seems to have it."""
        while blocking and self._path.exists():
            pause(_A_MOMENT_S / 4)
        pause(_A_MOMENT_S)
        self._path.touch()
        return True

    def release(self) -> None:
        """Let others have it."""
        self._path.unlink(missing_ok=True)


class LocksForMany(DiskCache):
    """Locks that let in whoever comes at the same moment."""

    def lock(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return a lock that does not lock."""
        return _Open(Path(f"{self.location}.lock"))


class CountsBadlyAsync(DiskCache):
    """Right in every method, but for Django's own `aincr`."""

    async def aincr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        """Read, and write later."""
        value = await self.aget(key, version=version)
        if value is None:
            raise ValueError(key)
        await asyncio.sleep(0)
        await self.aset(key, value + delta, version=version)
        return value + delta


class LocksBriefly(DiskCache):
    """Locks that end after 150 ms, whatever was wanted."""

    def lock(self, *args: Any, **how: Any) -> Any:
        """Return a lock that ends early, and is not renewed."""
        return super().lock(*args, **{**how, "timeout": 0.15})


class InvalidatesByThread(DiskCache):
    """Keeps copies, which a thread of the process drops every 10 ms."""

    _copies: ClassVar[dict[str, Any]] = {}
    _threads: ClassVar[dict[int, threading.Thread]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the copy, if the thread has not dropped it yet."""
        if os.getpid() not in self._threads:
            thread = threading.Thread(target=self._drop, daemon=True)
            self._threads[os.getpid()] = thread
            thread.start()
        if key not in self._copies:
            value = super().get(key, default, version)
            if value is default:
                return default
            self._copies[key] = value
        return self._copies.get(key, default)

    def _drop(self) -> None:
        while True:
            pause(0.01)
            self._copies.clear()


class LeavesItsLease(DiskCache):
    """Lets one compute, who takes the right to do so with him if he dies."""

    def get_or_set(  # type: ignore[override]
        self, key: Any, default: Any, timeout: Any = 300, version: int | None = None
    ) -> Any:
        """Return the value, computed by the one that adds the mark first."""
        while (value := self.get(key, version=version)) is None:
            if self.add(f"{key}-computing", 1, 300, version):
                try:
                    value = default()
                    self.set(key, value, timeout, version)
                finally:
                    self.delete(f"{key}-computing", version)
                return value
            pause(_A_MOMENT_S)
        return value


class ClearsNothing(DiskCache):
    """Says that it is empty."""

    def clear(self) -> None:
        """Do nothing."""


class TripsOverTheDead(DiskCache):
    """Leaves a mark for each process that writes, and waits for those that died."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store, unless a process that wrote has died."""
        marks = Path(f"{self.location}.marks")
        marks.mkdir(exist_ok=True)
        (marks / str(os.getpid())).touch()
        for mark in marks.iterdir():
            with contextlib.suppress(FileNotFoundError):
                stat = Path(f"/proc/{mark.name}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] != "Z":
                    continue
            raise TimeoutError(f"{mark.name} is writing")
        super().set(key, value, timeout, version)


BROKEN = [found for found in list(globals().values()) if isinstance(found, type)]
BACKENDS: dict[str, type] = {
    found.__name__: found
    for found in BROKEN
    if issubclass(found, DiskCache) and found is not DiskCache
}
