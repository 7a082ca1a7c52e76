"""Locks across threads and processes, with a fencing token for whoever must not come late.

Invariant: of two holders of one name, the later has the larger token, for ever: after `clear`,
eviction, a restart of the store, a reboot. So whatever a lock protects can refuse a holder that
was held up past its time: it remembers the largest token it saw and refuses smaller ones. A lock
alone cannot stop such a holder (Kleppmann, "How to do distributed locking", 2016).
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
from cacheapp.errors import CacheappError, LockLost

logger = logging.getLogger(__name__)
_FOR_EVER_S = 1e9


class Lock:
    """A lock of one name; not reentrant. One object is for one thread or task at a time.

    `timeout`: seconds after which it is free whatever its holder does; `None`: it is held until
    it is released or its holder dies (on Redis it is renewed meanwhile, and free within the option
    `lease_time` after a death). `blocking_timeout`: seconds that `acquire` and `with` wait.
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
        """Take the lock; return whether it was to be had (in time, where `blocking`)."""
        if self._try():
            return True
        if blocking:
            for pause_s in pauses(self._patience_s()):
                time.sleep(pause_s)
                if self._try():
                    return True
        return False

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Do what `acquire` does."""
        if await self._atry():
            return True
        if blocking:
            for pause_s in pauses(self._patience_s()):
                await asyncio.sleep(pause_s)
                if await self._atry():
                    return True
        return False

    async def _atry(self) -> bool:
        """Do what `_try` does; a task that is cancelled meanwhile does not leave it acquired."""
        trying = asyncio.ensure_future(in_thread(self._try))
        try:
            return bool(await asyncio.shield(trying))
        except asyncio.CancelledError:
            with contextlib.suppress(CacheappError):
                if await trying:
                    await in_thread(self.release)
            raise

    def _patience_s(self) -> float:
        return _FOR_EVER_S if self._blocking_timeout is None else self._blocking_timeout

    def _try(self) -> bool:
        if self.token is not None:
            raise RuntimeError(f"lock {self._name!r} is held by this object already")
        self.token = self._store.acquire_lock(self._name, self._ttl())
        if self.token is None:
            return False
        self._pid = os.getpid()
        if self._timeout is None and self._ttl() is not None:
            self._renewing.enter_context(renewer.renewing(self._renew, self._lease_s))
        return True

    def _ttl(self) -> float | None:
        """Return the TTL at the store: a store that sees deaths needs none."""
        if self._timeout is not None:
            return self._timeout
        return None if self._store.detects_dead_holders else self._lease_s

    def _renew(self) -> bool:
        token = self.token
        return token is not None and self._store.renew_lock(self._name, token, self._ttl())

    def extend(self) -> None:
        """Let the time begin anew; raise `LockLost` if somebody else may have had it meanwhile."""
        if not self._is_ours() or not self._renew():
            raise self._lost("extended")

    def release(self) -> None:
        """Give the lock back; raise `LockLost`, with nothing done, if it is not ours any more."""
        if not self._is_ours():
            raise self._lost("released")
        token = self.token
        assert token is not None  # noqa: S101 (for the type checker)
        self._renewing.close()
        released = self._store.release_lock(self._name, token)  # if it raises: try again
        self.token = None
        if not released:
            raise self._lost("released")

    async def arelease(self) -> None:
        """Do what `release` does."""
        await in_thread(self.release)

    def owned(self) -> bool:
        """Return whether this object holds the lock at this moment; renews nothing."""
        return self._is_ours() and self._store.lock_token(self._name) == self.token

    def _is_ours(self) -> bool:
        return self.token is not None and self._pid == os.getpid()  # a forked child has no part

    def _lost(self, what: str) -> LockLost:
        return LockLost(
            f"lock {self._name!r} was not {what}: it is not held here any more (its time was over, "
            "or it was never acquired); nothing was changed"
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
            f"lock {self._name!r} was not to be had within {self._blocking_timeout} s"
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
            logger.warning("a lock was not given back after an exception under it", exc_info=True)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await in_thread(self.__exit__, kind, error, trace)
