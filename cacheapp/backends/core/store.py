"""What a backend must provide: a few atomic primitives over final keys and encoded values.

`SharedCache` builds Django's whole API on these. One store exists per process and set of options;
all threads share it. Every primitive is one atomic step across all threads and processes, unless
it says otherwise: that is the invariant which the promises of docs/guarantees.md rest on.

A *payload* is what the codec made of a value: an `int` for a plain integer that the store can
count by itself, `bytes` for everything else. A *TTL* is a lifetime in seconds, above 0; `None`
means that the entry has no deadline.

`get` and `get_many` return whatever stands at a key. To all others, an entry that is not `visible`
(a lease, or past its soft deadline: see `forms`) is absent.

Errors of every primitive: `StoreUnavailable` (did not happen), `OutcomeUnknown` (may have
happened), `StoreFull` (a write found no room and did not happen).
"""

import abc
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar, cast

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.poller import Poller
from cacheapp.backends.core.watches import Watches
from cacheapp.backends.local.process_identity import HOLDER_BYTES


class NotCountable(Exception):
    """The entry is there, but its sum is not an integer that the store can count by itself.

    `found` is its payload where the store learned it on the way, which spares the caller a read.
    """

    def __init__(self, found: Payload | None = None) -> None:
        super().__init__()
        self.found = found


class Store(abc.ABC):
    """The primitives; `key` is always the final key: prefix, version and all."""

    def __init__(self) -> None:
        self.reset_watches()

    @abc.abstractmethod
    def get(self, key: str) -> Payload | None:
        """Return the payload, or `None` where there is none or its deadline has passed."""

    @abc.abstractmethod
    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that are there; atomic per key."""

    @abc.abstractmethod
    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        """Store the payload, replacing what was there and its deadline."""

    @abc.abstractmethod
    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads; return the keys that could not be. Atomic per key."""

    @abc.abstractmethod
    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if nothing is there; return whether this call did."""

    @abc.abstractmethod
    def has(self, key: str) -> bool:
        """Return whether an entry is there."""

    @abc.abstractmethod
    def delete(self, key: str) -> bool:
        """Remove the entry; return whether it was there (an expired one was not)."""

    @abc.abstractmethod
    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries; return how many were there. Atomic per key."""

    @abc.abstractmethod
    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline; return whether the entry was there."""

    @abc.abstractmethod
    def persist(self, key: str) -> bool:
        """Take the deadline away; return whether the entry was there and had one."""

    @abc.abstractmethod
    def ttl(self, key: str) -> float | None:
        """Return the TTL, `None` for an entry without deadline, 0.0 where there is no entry."""

    @abc.abstractmethod
    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer, keep its deadline, return the sum; `None` where no entry is.

        Raises `NotCountable`, with nothing changed, where the payload is no integer or the sum
        leaves what the store counts by itself; `SharedCache` then uses `replace`.
        """

    @abc.abstractmethod
    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload and keep the deadline, if `expected` is what is there; else `False`."""

    @abc.abstractmethod
    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload with this deadline, if `expected` is what is there; else `False`.

        `expected` may be a lease or an entry past its soft deadline, and so may the payload.
        """

    @abc.abstractmethod
    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Put the lease where nothing is, or the lease of a holder that is gone; return `None`.

        Where something else is, return that, and change nothing: an entry, visible or past its
        soft deadline, or the lease of a living holder.
        """

    def new_lease(self) -> bytes:
        """Return a lease of this process."""
        return lease_format.new_lease(bytes(HOLDER_BYTES))

    def is_orphaned(self, lease: Payload) -> bool:
        """Return whether a lease's holder is known to be gone. A server only sees its time end."""
        del lease
        return False

    def wait(self, key: str, seen: Payload, within_s: float) -> None:
        """Return when something else than `seen` may be at the key; after `within_s` at the latest.

        One thread of the process watches a key; the others wait for it.
        """
        self._watches.wait(key, within_s, lambda: self._watch(key, seen, within_s))

    async def await_change(self, key: str, seen: Payload, within_s: float) -> None:
        """Do what `wait` does, for tasks: one task of the event loop watches a key."""
        await self._watches.await_(key, within_s, lambda: self._awatch(key, seen, within_s))

    def _watch(self, key: str, seen: Payload, within_s: float) -> None:
        self._poller.wait(key, seen, within_s)

    async def _awatch(self, key: str, seen: Payload, within_s: float) -> None:
        await self._poller.await_(key, seen, within_s)

    def _changed(self, seen: Mapping[str, Payload]) -> list[str]:
        """Return the keys at which something else stands, or the lease of a holder that is gone."""
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
        """Return what stands at the keys; only the poller's thread calls it."""
        return self.get_many(list(seen))

    def reset_watches(self) -> None:
        """Begin anew; in a forked child, the threads that waited and looked are gone."""
        self._watches = Watches()
        self._poller = Poller(self._changed)

    detects_dead_holders: ClassVar[bool] = False
    """Whether leases and locks of a dead process are free at once, without their time being over."""

    @abc.abstractmethod
    def acquire_lock(self, name: str, ttl: float | None) -> int | None:
        """Take a lock that is free, over, or of a dead holder; return its fencing token, or `None`.

        The token is larger than all that were ever given for the name. Locks are no entries: no
        `clear`, `scan` or eviction reaches them.
        """

    @abc.abstractmethod
    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        """Let the lock's time begin anew if the token still holds it; return whether it did."""

    @abc.abstractmethod
    def release_lock(self, name: str, token: int) -> bool:
        """Free the lock if the token still holds it; return whether it did."""

    @abc.abstractmethod
    def lock_token(self, name: str) -> int | None:
        """Return the token that holds the lock, or `None` where it is free."""

    @abc.abstractmethod
    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if `expected` is what is there; return whether this call did."""

    @abc.abstractmethod
    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry if `expected` is what is at `source`; else change nothing, return `False`.

        `source` goes and `target` holds the payload with the deadline of `source`. No reader ever finds the entry in both places or in neither.
        """

    @abc.abstractmethod
    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove every key that is `prefix` and then matches the glob; return how many were visible.

        Not one instant: in batches of about `batch`; an entry written meanwhile may stay or go.
        """

    @abc.abstractmethod
    def clear(self, prefix: str) -> None:
        """Remove the keys of every version under the alias's `KEY_PREFIX`. Not one instant."""

    @abc.abstractmethod
    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield the final keys that are `prefix` and then match the glob, each at most once.

        Entries that come or go meanwhile may be missed; no lock or transaction is held between
        two keys.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections and files; the next primitive opens them again."""

    def end_request(self) -> None:  # noqa: B027 (a store with nothing to look at needs none)
        """Note that a request ended: Django's moment for looking after connections."""

    def before_fork(self) -> None:  # noqa: B027 (a store without connections needs none)
        """Come to rest, so that the fork copies no operation in flight."""

    def after_fork_in_parent(self) -> None:  # noqa: B027
        """Go on."""

    def after_fork_in_child(self) -> None:  # noqa: B027
        """Drop what must not be shared with the parent, then go on."""


class ForkAware(Protocol):
    """What the registry tells of forks: a store, or what several stores share."""

    def before_fork(self) -> None:
        """Come to rest."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Drop what must not be shared with the parent, then go on."""

    def reset_watches(self) -> None:
        """Forget the threads that waited; in the child, before the other."""


ForkAwareT = TypeVar("ForkAwareT", bound=ForkAware)


class _Registry:
    """The stores of this process, one per key; every fork is announced to each of them.

    `_lock` guards `_stores`. It is held through a fork, so that the child inherits it in a known
    state; reentrant, because a signal handler may fork while this thread prepares a fork. Stores
    are few and live as long as the process: nothing is ever taken out.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stores: dict[Hashable, ForkAware] = {}

    def get_or_create(self, key: Hashable, build: Callable[[], ForkAwareT]) -> ForkAwareT:
        """Return this process's store for `key`, built on first use; its class belongs in the key."""
        with self._lock:
            store = self._stores.get(key)
            if store is None:
                store = self._stores[key] = build()
            return cast("ForkAwareT", store)

    def before_fork(self) -> None:
        self._lock.acquire()
        interruption: BaseException | None = None
        for store in self._stores.values():
            try:
                store.before_fork()
            except BaseException as exc:  # noqa: BLE001 (the fork comes: all stores must be ready)
                interruption = exc
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        for store in self._stores.values():
            store.after_fork_in_parent()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        for store in self._stores.values():
            store.reset_watches()
            store.after_fork_in_child()
        self._lock.release()  # this thread took it, and is the one that came along


registry = _Registry()
os.register_at_fork(
    before=registry.before_fork,
    after_in_parent=registry.after_fork_in_parent,
    after_in_child=registry.after_fork_in_child,
)
