"""Locks across threads and processes, with fencing tokens.

Invariant: of two holders of one name, the later has the larger token, also after `clear`, eviction,
a restart of the store or a reboot. A resource that remembers the largest token can therefore refuse
a holder that was delayed past the end of its lock. A lock alone cannot stop such a holder
(Kleppmann, "How to do distributed locking", 2016).
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from cacheapp import clock
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.operation import note_wait
from cacheapp.backends.core.renewer import renewer
from cacheapp.backends.core.store import Store
from cacheapp.backends.core.watches import pauses
from cacheapp.errors import CacheappError, LockLost, StoreUnavailable

logger = logging.getLogger(__name__)
_FOR_EVER_S = 1e9


@dataclasses.dataclass(frozen=True)
class LockOptions:
    """The options of a lock, those of django-redis; `Lock` describes them."""

    timeout: float | None = None
    sleep: float | None = None
    blocking: bool = True
    blocking_timeout: float | None = None
    thread_local: bool = False

    def __post_init__(self) -> None:
        for what in ("timeout", "sleep", "blocking_timeout"):
            _check_seconds(what, getattr(self, what))
        if self.thread_local:
            raise ValueError(
                "thread_local is True; expected False: a lock belongs to the object, so create one "
                "with cache.lock() in each thread"
            )


def _check_seconds(what: str, found: float | None) -> None:
    if found is not None and not found > 0:
        raise ValueError(f"{what} is {found!r}; expected None or seconds above 0")


class Lock:
    """A lock of one name; not reentrant. Use each object in one thread or task at a time.

    `timeout`: seconds after which the lock is free again, even if its holder is still running.
    `None`: it is held until it is released or its holder dies (on Redis it is renewed while it is
    held, and becomes free within the option `lease_time` after a death). `sleep`: seconds between
    two attempts of `acquire`; `None`: few at first, then more. `blocking`: whether `acquire` and
    `with` wait, at most `blocking_timeout` seconds; `None`: without limit.
    """

    def __init__(self, store: Store, name: str, options: LockOptions, lease_s: float) -> None:
        self._store = store
        self._name = name
        self._options = options
        self._timeout = options.timeout
        self._lease_s = lease_s
        self._ends_at_s = math.inf  # by `clock.boot_s`; never later than at the store
        self._renewing = contextlib.ExitStack()
        self._pid = os.getpid()
        self.alias = self.backend_name = ""
        self.operation_keys: tuple[str, ...] = (name,)
        self.token: int | None = None
        """The fencing token while it is held by this object."""

    def acquire(
        self,
        sleep: float | None = None,
        blocking: bool | None = None,  # noqa: FBT001 (redis-py's signature)
        blocking_timeout: float | None = None,
    ) -> bool:
        """Acquire the lock; return False if it is held, with `blocking` until `blocking_timeout`.

        An argument that is not `None` replaces the lock's own option in this call.
        """
        if self._try_acquire():
            return True
        for pause_s in self._pauses(sleep, blocking, blocking_timeout):
            time.sleep(pause_s)
            note_wait(pause_s)
            if self._try_acquire():
                return True
        return False

    async def aacquire(
        self,
        sleep: float | None = None,
        blocking: bool | None = None,  # noqa: FBT001 (redis-py's signature)
        blocking_timeout: float | None = None,
    ) -> bool:
        """Async twin of `acquire`."""
        if await self._atry_acquire():
            return True
        for pause_s in self._pauses(sleep, blocking, blocking_timeout):
            await asyncio.sleep(pause_s)
            note_wait(pause_s)
            if await self._atry_acquire():
                return True
        return False

    def _pauses(
        self,
        sleep: float | None,
        blocking: bool | None,  # noqa: FBT001 (as `acquire`)
        blocking_timeout: float | None,
    ) -> Iterator[float]:
        """Yield the pauses before the next attempts."""
        _check_seconds("sleep", sleep)
        _check_seconds("blocking_timeout", blocking_timeout)
        options = self._options
        if not (options.blocking if blocking is None else blocking):
            return
        within_s = options.blocking_timeout if blocking_timeout is None else blocking_timeout
        yield from pauses(
            _FOR_EVER_S if within_s is None else within_s, options.sleep if sleep is None else sleep
        )

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

    def _try_acquire(self) -> bool:
        if self.token is not None:
            raise RuntimeError(f"lock {self._name!r} is already held by this object")
        is_renewed = self._timeout is None and self._ttl() is not None
        if is_renewed and not renewer.ensure_running():
            raise StoreUnavailable(
                f"lock {self._name!r} was not acquired: the system allows no thread that would "
                "renew it; raise the limit of threads, or give the lock a timeout"
            )
        issued: list[int] = []
        try:
            return self._acquire_once(issued.append, is_renewed=is_renewed)
        except BaseException:  # a signal handler's too: the caller does not know of the lock
            self._give_back(issued)
            raise

    def _acquire_once(self, note: Callable[[int], None], *, is_renewed: bool) -> bool:
        ttl = self._ttl()
        ends_at_s = _end_of(self._timeout)  # before the store's: it counts from later
        self.token = self._store.acquire_lock(self._name, ttl, note)
        if self.token is None:
            return False
        self._pid, self._ends_at_s = os.getpid(), ends_at_s
        if is_renewed:
            self._renewing.enter_context(renewer.renewing(self._renew, self._lease_s))
        return True

    def _give_back(self, issued: list[int]) -> None:
        """Release what an acquisition that failed may hold; else the lock ends with its TTL."""
        self.token = None
        self._renewing.close()
        with contextlib.suppress(CacheappError):
            for token in issued[-1:]:
                self._store.release_lock(self._name, token)

    def _ttl(self) -> float | None:
        """Return the TTL for the store; `None` if it detects the death of a holder."""
        if self._timeout is not None:
            return self._timeout
        return None if self._store.detects_dead_holders else self._lease_s

    def _renew(self, timeout: float | None = None) -> bool:
        token = self.token
        ttl = self._ttl() if timeout is None else timeout
        return token is not None and self._store.renew_lock(self._name, token, ttl)

    def extend(
        self,
        additional_time: float | None = None,
        replace_ttl: bool = False,  # noqa: FBT001, FBT002 (redis-py's signature)
    ) -> bool:
        """Add seconds to the time left, or with `replace_ttl` set it; `None` restarts the timeout.

        Returns True; raises `LockLost` if the lock is no longer held.
        """
        if additional_time is None:
            return self.reacquire()
        _check_seconds("additional_time", additional_time)
        if self._timeout is None:
            raise ValueError(
                f"lock {self._name!r} has no timeout to extend: it is held until it is released"
            )
        left_s = 0.0 if replace_ttl else max(0.0, self._ends_at_s - clock.boot_s())
        return self._restart(left_s + additional_time)

    def reacquire(self) -> bool:
        """Restart the timeout; return True. Raises `LockLost` if the lock is no longer held."""
        return self._restart(self._timeout)

    def _restart(self, timeout: float | None) -> bool:
        ends_at_s = _end_of(timeout)
        if not self._is_held_here() or not self._renew(timeout):
            raise self._lost("extended")
        self._ends_at_s = ends_at_s
        return True

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

    def locked(self) -> bool:
        """Return True if the lock is held at this moment, by any process."""
        return self._store.lock_token(self._name) is not None

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
            f"could not acquire lock {self._name!r} within {self._options.blocking_timeout} s"
            if self._options.blocking
            else f"lock {self._name!r} is held, and it is not waited for"
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


def _end_of(timeout: float | None) -> float:
    return math.inf if timeout is None else clock.boot_s() + timeout
