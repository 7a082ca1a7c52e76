"""One client: it calls the cache, one call at a time, and records each call and its result.

A session is used by one thread. It uses only the API of Django's `BaseCache`; its `cache` may also be
an adapter over HTTP, or one that runs the `a…` methods.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.adapters.base import CREATES, abilities
from cacheapp.cachecheck.journal import Journal
from cacheapp.consistency.history import ABSENT, OperationKind, Outcome
from cacheapp.errors import ClearRefused, StoreFull, StoreUnavailable, ValueRefused
from cacheapp.processes.waiting import pause

TIMEOUT_S = 300
"""Removes the keys of a check that was killed."""
_MISSING = object()
_PER_TURN = 10_000
_AFTER_FAILURE_S = 0.02
Place = tuple[int, int, int]
"""The number of a session, the number of sessions, and the number of the order."""
_DID_NOTHING = (StoreUnavailable, StoreFull, ValueRefused, ClearRefused)


class AsyncAdapter:
    """A synchronous adapter of a cache's `a…` methods."""

    def __init__(self, cache: Any, runner: asyncio.Runner) -> None:
        self._cache = cache
        self._runner = runner

    @property
    def abilities(self) -> frozenset[str]:
        """What the cache can do by its asynchronous methods."""
        return abilities(self._cache, use_async=True)

    @property
    def subject(self) -> Any:
        """The cache itself."""
        return self._cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        twin = getattr(self._cache, f"a{name}")

        def call(*args: Any, **kwargs: Any) -> Any:
            async def run() -> Any:
                return await twin(*args, **kwargs)

            return self._runner.run(run())

        return call

    def lock(self, *args: Any, **kwargs: Any) -> "AsyncLock":
        """Return an adapter of the asynchronous methods of a lock."""
        return AsyncLock(self._cache.lock(*args, **kwargs), self._runner)

    def finish(self) -> None:
        """Close the event loop."""
        self._runner.close()


class AsyncLock:
    """A synchronous adapter of a lock's `aacquire` and `arelease`."""

    def __init__(self, lock: Any, runner: asyncio.Runner) -> None:
        self._lock = lock
        self._runner = runner

    @property
    def token(self) -> Any:
        """The fencing token, if the lock has one."""
        return getattr(self._lock, "token", None)

    @property
    def acquire(self) -> Callable[..., Any]:
        """Acquire the lock; raise `AttributeError` if it has no `aacquire`."""
        twin = self._lock.aacquire
        return lambda **how: self._runner.run(twin(**how))

    def release(self) -> None:
        """Release the lock."""
        self._runner.run(self._lock.arelease())


def _removed(result: Any) -> bool | None:
    """Return whether `delete` found the key; of some libraries it says nothing, and returns `None`."""
    return None if result is None else bool(result)


class ClientSession:
    """A client of a cache. `number` counts all sessions of a run, from 0 to `count` - 1."""

    def __init__(self, cache: Any, process: str, place: Place, seed: int, directory: Path) -> None:
        self.cache = cache
        self.process = process
        self.number, self.count, turn = place
        self.rng = random.Random(f"{seed}/{self.number}/{turn}")
        self.directory = directory
        known = cache.abilities if isinstance(cache, AsyncAdapter) else abilities(cache)
        self.abilities: frozenset[str] = known
        self._journal = Journal(directory, process)
        self._written = turn * _PER_TURN

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def continue_as(self, journal: Journal) -> None:
        """Continue as another process after a fork, with a journal of its own."""
        self._journal = journal
        self.process = journal.process
        self._written += _PER_TURN // 2  # numbers that the parent does not use

    def can(self, operation: str) -> bool:
        """Return whether the cache has an operation, as Django defines it."""
        if operation in {"incr", "decr"} and CREATES in self.abilities:
            return False
        return operation in self.abilities

    def unique(self) -> int:
        """Return a number that no other session uses, with room to increment it."""
        self._written += 1
        return (self._written * self.count + self.number + 1) * 1_000

    # -- recorded calls ------------------------------------------------------------------

    def record(
        self, kind: OperationKind, key: str, call: Callable[[], Any], argument: Any = None
    ) -> Any:
        """Make a call and record its outcome; return the result, or `None`."""
        began = clock.monotonic_ns()
        self._journal.call(kind, key, argument, began)
        try:
            result = call()
        except ValueError as exc:
            if kind not in {OperationKind.INCR, OperationKind.DECR}:
                return self._failed(kind, exc)
            result = ABSENT
        except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
            return self._failed(kind, exc)
        ended = clock.monotonic_ns()
        if kind is OperationKind.SET:
            # Some backends return False for a write that failed.
            outcome = Outcome.INFO if result is False else Outcome.OK
            result = None
        else:
            outcome = Outcome.OK
        self._journal.answer(result, outcome, ended)
        return result

    def _failed(self, kind: OperationKind, exc: Exception) -> None:
        nothing_done = isinstance(exc, _DID_NOTHING) or kind in {
            OperationKind.GET,
            OperationKind.HAS_KEY,
        }
        outcome = Outcome.FAIL if nothing_done else Outcome.INFO
        text = f"{kind}: {type(exc).__name__}: {exc}"[:300]
        self._journal.answer(None, outcome, clock.monotonic_ns(), text)
        # A store that is down refuses thousands of writes a second; each may have happened.
        pause(_AFTER_FAILURE_S)

    def get(self, key: str) -> Any:
        """Return the number that is stored, or `ABSENT`; anything else as text."""

        def get() -> Any:
            value = self.cache.get(key, _MISSING)
            if value is _MISSING:
                return ABSENT
            return value if type(value) is int else repr(value)[:80]

        return self.record(OperationKind.GET, key, get)

    def set(self, key: str, value: int, timeout: float = TIMEOUT_S) -> None:
        """Store a number."""
        self.record(OperationKind.SET, key, lambda: self.cache.set(key, value, timeout), value)

    def add(self, key: str, value: int, timeout: float = TIMEOUT_S) -> Any:
        """Store a number if the key is absent; return whether this call did."""
        return self.record(
            OperationKind.ADD, key, lambda: bool(self.cache.add(key, value, timeout)), value
        )

    def delete(self, key: str) -> Any:
        """Remove the key; return whether it was there."""
        return self.record(OperationKind.DELETE, key, lambda: _removed(self.cache.delete(key)))

    def touch(self, key: str, timeout: float = TIMEOUT_S) -> Any:
        """Give the key a timeout; return whether it was there."""
        return self.record(OperationKind.TOUCH, key, lambda: bool(self.cache.touch(key, timeout)))

    def incr(self, key: str, delta: int = 1) -> Any:
        """Add to the number; return the sum, or `ABSENT` where there is none."""
        return self.record(OperationKind.INCR, key, lambda: self.cache.incr(key, delta), delta)

    def decr(self, key: str, delta: int = 1) -> Any:
        """Subtract from the number; return the difference, or `ABSENT` where there is none."""
        return self.record(OperationKind.DECR, key, lambda: self.cache.decr(key, delta), delta)

    def set_many(self, values: Mapping[str, int]) -> None:
        """Store several numbers; each is recorded as a call of its own on its key."""
        began = clock.monotonic_ns()
        try:
            refused = set(self.cache.set_many(dict(values), TIMEOUT_S) or [])
        except Exception as exc:  # noqa: BLE001
            text = f"set_many: {type(exc).__name__}: {exc}"[:300]
            self._many(OperationKind.SET, values, began, {}, Outcome.INFO, text)
            return
        outcome = Outcome.INFO if refused else Outcome.OK
        self._many(OperationKind.SET, values, began, {}, outcome)

    def get_many(self, keys: Sequence[str]) -> None:
        """Read several numbers; each is recorded as a call of its own on its key."""
        began = clock.monotonic_ns()
        try:
            found = self.cache.get_many(list(keys))
        except Exception as exc:  # noqa: BLE001
            text = f"get_many: {type(exc).__name__}: {exc}"[:300]
            self._many(OperationKind.GET, dict.fromkeys(keys), began, {}, Outcome.FAIL, text)
            return
        self._many(OperationKind.GET, dict.fromkeys(keys), began, found, Outcome.OK)

    def _many(
        self,
        kind: OperationKind,
        arguments: Mapping[str, int | None],
        began: int,
        results: Mapping[str, Any],
        outcome: Outcome,
        error: str = "",
    ) -> None:
        ended = clock.monotonic_ns()
        for key, argument in arguments.items():
            self._journal.call(kind, key, argument, began)
            self._journal.answer(results.get(key), outcome, ended, error)

    # -- synchronisation ------------------------------------------------------------------------

    def until_ns(self, moment_ns: int) -> None:
        """Wait for a moment; all sessions have the same clock."""
        if (left := moment_ns - clock.monotonic_ns()) > 0:
            pause(left / 1e9)

    def signal_event(self, name: str) -> None:
        """Signal an event to the other sessions."""
        (self.directory / f"{name}.event").touch()

    def await_event(self, name: str, within_s: float) -> bool:
        """Wait for an event of another session; return whether it came in time."""
        deadline = clock.monotonic_ns() + int(within_s * 1e9)
        while not (self.directory / f"{name}.event").exists():
            if clock.monotonic_ns() > deadline:
                return False
            pause(0.001)
        return True
