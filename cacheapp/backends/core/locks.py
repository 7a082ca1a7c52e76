"""Locks across threads and processes, with fencing tokens.

Invariant: of two holders of one name, the later has the larger token, also after `clear`, eviction,
a restart of the store or a reboot. A resource that remembers the largest token can therefore refuse
a holder that was delayed past the end of its lock. A lock alone cannot stop such a holder
(Kleppmann, "How to do distributed locking", 2016).
"""

import asyncio
import contextlib
import logging
import os
import time
from types import TracebackType
from typing import Self

from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.renewer import renewer
from cacheapp.backends.core.store import Store
from cacheapp.backends.core.watches import pauses
from cacheapp.errors import CacheappError, LockLost, StoreUnavailable

logger = logging.getLogger(__name__)
_FOR_EVER_S = 1e9


class Lock:
    """A lock of one name; not reentrant. Use each object in one thread or task at a time.

    `timeout`: seconds after which the lock is free again, even if its holder is still running.
    `None`: it is held until it is released or its holder dies (on Redis it is renewed while it is
    held, and becomes free within the option `lease_time` after a death). `blocking_timeout`:
    seconds that `acquire` and `with` wait; `None`: without limit.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        timeout: float | None,
        blocking_timeout: float | None,
        lease_s: float,
    ) -> None:
        self._store = store
        self._name = name
        self._timeout = timeout
        self._blocking_timeout = blocking_timeout
        self._lease_s = lease_s
        self._renewing = contextlib.ExitStack()
        self._pid = os.getpid()
        self.token: int | None = None
        """The fencing token while it is held by this object."""

    def acquire(self, *, blocking: bool = True) -> bool:
        """Acquire the lock; return False if it is held, with `blocking` until `blocking_timeout`."""
        if self._try_acquire():
            return True
        if blocking:
            for pause_s in pauses(self._max_wait_s()):
                time.sleep(pause_s)
                if self._try_acquire():
                    return True
        return False

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Async twin of `acquire`."""
        if await self._atry_acquire():
            return True
        if blocking:
            for pause_s in pauses(self._max_wait_s()):
                await asyncio.sleep(pause_s)
                if await self._atry_acquire():
                    return True
        return False

    async def _atry_acquire(self) -> bool:
        """Async twin of `_try_acquire`. A task that is cancelled during it does not keep the lock."""
        trying = asyncio.ensure_future(in_thread(self._try_acquire))
        try:
            return bool(await asyncio.shield(trying))
        except asyncio.CancelledError:
            with contextlib.suppress(CacheappError):
                if await trying:
                    await in_thread(self.release)
            raise

    def _max_wait_s(self) -> float:
        return _FOR_EVER_S if self._blocking_timeout is None else self._blocking_timeout

    def _try_acquire(self) -> bool:
        if self.token is not None:
            raise RuntimeError(f"lock {self._name!r} is already held by this object")
        is_renewed = self._timeout is None and self._ttl() is not None
        if is_renewed and not renewer.ensure_running():
            raise StoreUnavailable(
                f"lock {self._name!r} was not acquired: the system allows no thread that would "
                "renew it; raise the limit of threads, or give the lock a timeout"
            )
        self.token = self._store.acquire_lock(self._name, self._ttl())
        if self.token is None:
            return False
        self._pid = os.getpid()
        if is_renewed:
            self._renewing.enter_context(renewer.renewing(self._renew, self._lease_s))
        return True

    def _ttl(self) -> float | None:
        """Return the TTL for the store; `None` if it detects the death of a holder."""
        if self._timeout is not None:
            return self._timeout
        return None if self._store.detects_dead_holders else self._lease_s

    def _renew(self) -> bool:
        token = self.token
        return token is not None and self._store.renew_lock(self._name, token, self._ttl())

    def extend(self) -> None:
        """Restart the timeout; raise `LockLost` if the lock is no longer held."""
        if not self._is_held_here() or not self._renew():
            raise self._lost("extended")

    def release(self) -> None:
        """Release the lock; raise `LockLost`, with nothing changed, if it is no longer held."""
        if not self._is_held_here():
            raise self._lost("released")
        token = self.token
        assert token is not None  # noqa: S101 (for the type checker)
        self._renewing.close()
        released = self._store.release_lock(self._name, token)  # if it raises: try again
        self.token = None
        if not released:
            raise self._lost("released")

    async def arelease(self) -> None:
        """Async twin of `release`."""
        await in_thread(self.release)

    def owned(self) -> bool:
        """Return True if this object holds the lock at this moment. Does not renew it."""
        return self._is_held_here() and self._store.lock_token(self._name) == self.token

    def _is_held_here(self) -> bool:
        return (
            self.token is not None and self._pid == os.getpid()
        )  # a forked child does not hold it

    def _lost(self, what: str) -> LockLost:
        return LockLost(
            f"lock {self._name!r} was not {what}: it is no longer held by this object (its timeout "
            "was over, or it was never acquired); nothing was changed"
        )

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._not_acquired()
        return self

    async def __aenter__(self) -> Self:
        if not await self.aacquire():
            raise self._not_acquired()
        return self

    def _not_acquired(self) -> TimeoutError:
        return TimeoutError(
            f"could not acquire lock {self._name!r} within {self._blocking_timeout} s"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except CacheappError:
            if error is None:
                raise
            logger.warning(
                "a lock could not be released after an exception in its block", exc_info=True
            )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await in_thread(self.__exit__, kind, error, trace)
