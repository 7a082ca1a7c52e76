"""What a backend must provide: a few atomic primitives on final keys and encoded values.

`SharedCache` builds the whole cache API on these. There is one store per process and set of
options, and all threads share it. Unless its docstring says otherwise, every primitive is one
atomic step across all threads and processes; the promises of docs/guarantees.md depend on that.

A *payload* is an encoded value: an `int` for a plain integer, which the store can count itself, and
`bytes` for everything else. A *TTL* is a lifetime in seconds, above 0; `None` means no deadline.

`get` and `get_many` return any payload. For all other primitives, an entry that is not visible (a
lease, or an entry past its soft deadline: see `lease_format`) does not exist.

Every primitive may raise `StoreUnavailable` (it had no effect), `OutcomeUnknown` (it may have had
one) and, if it writes, `StoreFull` (there was no space; it had no effect).
"""

import abc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar, cast

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.poller import Poller
from cacheapp.backends.core.watches import Watches
from cacheapp.backends.local import forks
from cacheapp.backends.local.process_identity import HOLDER_BYTES


class NotCountable(Exception):
    """The entry exists, but it or the sum is not an integer that the store can count itself.

    `found` is its payload if the store has read it, which saves the caller a read.
    """

    def __init__(self, found: Payload | None = None) -> None:
        super().__init__()
        self.found = found


class Store(abc.ABC):
    """The primitives. `key` is always the final key, with prefix and version."""

    def __init__(self) -> None:
        self.reset_watches()

    @abc.abstractmethod
    def get(self, key: str) -> Payload | None:
        """Return the payload, or `None` if there is none or its deadline has passed."""

    @abc.abstractmethod
    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads of the keys that exist; atomic per key."""

    def check_size(self, length: int) -> None:  # noqa: B027 (most stores know no such size)
        """Raise what a write of so many bytes would raise if no value of that size is ever stored.

        Called before a value is signed and copied, to refuse a very large one early.
        """

    @abc.abstractmethod
    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        """Store the payload, replacing any entry and its deadline."""

    @abc.abstractmethod
    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads; return the keys that could not be stored. Atomic per key."""

    @abc.abstractmethod
    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if there is no entry; return True if this call stored it."""

    def set_existing(self, key: str, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if there is an entry; return True if this call stored it."""
        while (found := self.get(key)) is not None:
            if lease_format.visible(found, clock.wall_s()) is None:
                break
            if self.fill(key, found, payload, ttl):
                return True
        return False

    @abc.abstractmethod
    def has(self, key: str) -> bool:
        """Return True if the entry exists."""

    @abc.abstractmethod
    def delete(self, key: str) -> bool:
        """Remove the entry; return True if it existed (an expired one did not)."""

    @abc.abstractmethod
    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries; return how many existed. Atomic per key."""

    @abc.abstractmethod
    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline; return True if the entry existed."""

    @abc.abstractmethod
    def persist(self, key: str) -> bool:
        """Remove the deadline; return True if the entry existed and had one."""

    @abc.abstractmethod
    def ttl(self, key: str) -> float | None:
        """Return the TTL; `None` for an entry without a deadline, 0.0 if there is no entry."""

    @abc.abstractmethod
    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer, keep its deadline, return the sum; `None` if there is no entry.

        Raises `NotCountable`, with nothing changed, if the payload is not an integer or the sum is
        outside the range that the store can count; `SharedCache` then uses `replace`.
        """

    @abc.abstractmethod
    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload and keep the deadline if the entry holds `expected`; else return False."""

    @abc.abstractmethod
    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload with this TTL if the entry holds `expected`; else return False.

        `expected` may be a lease or an entry past its soft deadline, and so may the payload.
        """

    @abc.abstractmethod
    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Store the lease if there is no entry, or only the lease of a dead holder; return `None`.

        Otherwise change nothing and return the payload: an entry, visible or past its soft
        deadline, or the lease of a living holder.
        """

    def new_lease(self) -> bytes:
        """Return a new lease of this process."""
        return lease_format.new_lease(bytes(HOLDER_BYTES))

    def is_orphaned(self, lease: Payload) -> bool:
        """Return True if the lease's holder is known to be dead. A server cannot know that."""
        del lease
        return False

    def wait(self, key: str, seen: Payload, within_s: float) -> None:
        """Return when the key may no longer hold `seen`, or after `within_s` seconds.

        One thread of the process watches a key; the others wait for that thread.
        """
        self._watches.wait(key, within_s, lambda: self._watch(key, seen, within_s))

    async def await_change(self, key: str, seen: Payload, within_s: float) -> None:
        """Async twin of `wait`: one task of each event loop watches a key."""
        await self._watches.await_(key, within_s, lambda: self._awatch(key, seen, within_s))

    def _watch(self, key: str, seen: Payload, within_s: float) -> None:
        self._poller.wait(key, seen, within_s)

    async def _awatch(self, key: str, seen: Payload, within_s: float) -> None:
        await self._poller.await_(key, seen, within_s)

    def _changed(self, seen: Mapping[str, Payload]) -> list[str]:
        """Return the keys that hold another payload than `seen`, or the lease of a dead holder."""
        found = self._look(seen)
        gone: dict[bytes, bool] = {}
        changed = []
        for key, payload in seen.items():
            if found.get(key) != payload:
                changed.append(key)
            elif isinstance(payload, bytes) and lease_format.is_lease(payload):
                holder = lease_format.holder_of(payload)
                if holder not in gone:
                    gone[holder] = self.is_orphaned(payload)
                if gone[holder]:
                    changed.append(key)
        return changed

    def _look(self, seen: Mapping[str, Payload]) -> Mapping[str, Payload]:
        """Return the current payloads. Only the poller's thread calls it."""
        return self.get_many(list(seen))

    def reset_watches(self) -> None:
        """Forget all watches: a forked child does not have the threads that waited."""
        self._watches = Watches()
        self._poller = Poller(self._changed)

    detects_dead_holders: ClassVar[bool] = False
    """Whether leases and locks of a dead process become free at once, before their deadline."""

    @abc.abstractmethod
    def acquire_lock(self, name: str, ttl: float | None, note: Callable[[int], None]) -> int | None:
        """Acquire a lock that is free, expired or held by a dead process; else return `None`.

        Returns a fencing token, larger than every earlier token of the name. Locks are not entries:
        `clear`, `scan` and eviction do not affect them. `note` is called with the token before
        anything is stored, where the store can do that: an interrupted caller releases it.
        """

    @abc.abstractmethod
    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        """Restart the lock's TTL if the token still holds it; else return False."""

    @abc.abstractmethod
    def release_lock(self, name: str, token: int) -> bool:
        """Release the lock if the token still holds it; else return False."""

    @abc.abstractmethod
    def lock_token(self, name: str) -> int | None:
        """Return the token that holds the lock, or `None` if it is free."""

    @abc.abstractmethod
    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if it holds `expected`; return True if this call removed it."""

    @abc.abstractmethod
    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry if `source` holds `expected`; else change nothing and return False.

        `source` is removed, and `target` holds the payload with the deadline of `source`. No reader
        finds the entry at both keys or at neither.
        """

    @abc.abstractmethod
    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove the keys that are `prefix` and a match of the glob; return how many were visible.

        Not atomic: works in batches of about `batch`. An entry written during the call may remain.
        """

    @abc.abstractmethod
    def clear(self, prefix: str) -> None:
        """Remove the keys of every version under the alias's `KEY_PREFIX`. Not atomic."""

    @abc.abstractmethod
    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield the final keys that are `prefix` and a match of the glob, each at most once.

        Entries that are stored or removed during the scan may be missed. No lock or transaction is
        held while a key is yielded.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close connections and files; the next primitive opens them again."""

    def end_request(self) -> None:  # noqa: B027 (not every store needs it)
        """Note that a request ended, which is when Django checks connections."""

    def before_fork(self) -> None:  # noqa: B027 (a store without connections does not need it)
        """Stop all operations, so that the fork copies none in flight."""

    def after_fork_in_parent(self) -> None:  # noqa: B027
        """Allow operations again."""

    def after_fork_in_child(self) -> None:  # noqa: B027
        """Drop the resources that must not be shared with the parent; allow operations again."""


class ForkAware(Protocol):
    """An object to which the registry announces forks: a store, or a resource of several stores."""

    def before_fork(self) -> None:
        """See `Store.before_fork`."""

    def after_fork_in_parent(self) -> None:
        """See `Store.after_fork_in_parent`."""

    def after_fork_in_child(self) -> None:
        """See `Store.after_fork_in_child`."""

    def reset_watches(self) -> None:
        """See `Store.reset_watches`; called in the child, before `after_fork_in_child`."""


ForkAwareT = TypeVar("ForkAwareT", bound=ForkAware)


class _Registry:
    """The stores of this process, one per key. Each fork is announced to all of them.

    `_lock` guards `_stores`, and is held during a fork. It is reentrant: a signal handler may fork,
    or build a store, at any point of `get_or_create`; the first store for a key is the one. Stores
    are few and live as long as the process, so none is ever removed.
    """

    def __init__(self) -> None:
        self._lock = forks.ForkLock()
        self._stores: dict[Hashable, ForkAware] = {}

    def get_or_create(self, key: Hashable, build: Callable[[], ForkAwareT]) -> ForkAwareT:
        """Return this process's store for `key`, built on first use. Include its class in `key`."""
        if not forks.mark[0]:
            forks.recover()
        with self._lock.lock:
            store = self._stores.get(key)
            if store is None:
                store = self._stores.setdefault(key, build())
            return cast("ForkAwareT", store)

    def register(self) -> None:
        """Have all forks announced to the stores; called once, after construction."""
        forks.register(
            before=lambda: forks.run_all([store.before_fork for store in self._all()]),
            in_parent=lambda: forks.run_all([store.after_fork_in_parent for store in self._all()]),
            in_child=lambda: forks.run_all(
                [
                    step
                    for store in self._all()
                    for step in (store.reset_watches, store.after_fork_in_child)
                ]
            ),
        )
        # Acquired before these, because hooks before a fork run in reverse order; released after.
        forks.register(
            before=self._lock.before, in_parent=self._lock.in_parent, in_child=self._lock.in_child
        )

    def _all(self) -> list[ForkAware]:
        return list(self._stores.values())


registry = _Registry()
registry.register()
