"""What the two stores on this machine share: leases and locks that end with their holder's process."""

from collections.abc import Callable
from typing import ClassVar

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import Store
from cacheapp.backends.local.lock_table import LockStore
from cacheapp.backends.local.process_identity import HolderRegistry


class LocalStore(Store):
    """A store with leases that name a process of this machine, and locks in a `LockStore`.

    `lock_prefix` keeps apart the locks of several stores that share one `LockStore`.
    """

    detects_dead_holders: ClassVar[bool] = True

    def __init__(self, holders: HolderRegistry, locks: LockStore, lock_prefix: str = "") -> None:
        super().__init__()
        self._holders = holders
        self._locks = locks
        self._lock_prefix = lock_prefix

    def new_lease(self) -> bytes:
        """Return a new lease of this process."""
        return lease_format.new_lease(self._holders.own_name_or_unknown())

    def is_orphaned(self, lease: Payload) -> bool:
        """Return whether the process that holds a lease is dead."""
        return (
            isinstance(lease, bytes)
            and lease_format.is_lease(lease)
            and not self._holders.is_alive(lease_format.holder_of(lease))
        )

    def acquire_lock(self, name: str, ttl: float | None, note: Callable[[int], None]) -> int | None:
        """Acquire a lock that is free, expired or held by a dead process."""
        return self._locks.acquire(self._lock_prefix + name, ttl, note)

    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        """Restart the lock's TTL."""
        return self._locks.renew(self._lock_prefix + name, token, ttl)

    def release_lock(self, name: str, token: int) -> bool:
        """Release the lock."""
        return self._locks.release(self._lock_prefix + name, token)

    def lock_token(self, name: str) -> int | None:
        """Return the token that holds the lock."""
        return self._locks.token(self._lock_prefix + name)
