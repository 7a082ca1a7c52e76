"""`Store` on LMDB: each primitive is one transaction."""

import atexit
import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar

import lmdb

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.lmdb import entries
from cacheapp.backends.lmdb.entries import Name
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.location import Location
from cacheapp.backends.lmdb.records import decode_payload
from cacheapp.backends.lmdb.writes import Writes
from cacheapp.errors import StoreFull

_DROPPED_AT_ONCE = 100


class LMDBStore(Writes):
    """One alias's keys in the environment of a LOCATION."""

    sees_deaths: ClassVar[bool] = True

    def __init__(self, shared: Location, names: KeyEncoder) -> None:
        super().__init__(shared.environment, names)
        self._shared = shared
        self._name = names.of
        self._write = self.environment.write
        self._largest_bytes = self.environment.limits.max_entry_bytes
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<LMDBStore {self.environment!r}>"

    # -- writes ------------------------------------------------------------------------------

    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        """Store the payload. For want of room, nothing is stored and nothing stays."""
        name = self._name(key)
        length = len(payload) if type(payload) is bytes else _length(payload)
        if length <= self._largest_bytes:
            try:
                self._write(entries.put, name, payload, ttl)
            except lmdb.MapFullError:
                pass
            else:
                return
        try:
            self._stored(length, entries.put, name, payload, ttl)
        except StoreFull:
            self._turned_away([name[0]], length)

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads in one transaction, or none; return the keys that were not stored."""
        items = [(self._name(key), payload) for key, payload in payloads.items()]
        length = sum(_length(payload) for payload in payloads.values())
        try:
            self._stored(length, entries.put_many, items, ttl)
        except StoreFull:
            self._turned_away([name for (name, _), _ in items], length)
            return list(payloads)
        return []

    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if nothing is there."""
        if self.has(key):
            return False  # most calls of an `add` that somebody else won end here
        return self._stored(_length(payload), entries.add, self._name(key), payload, ttl)

    def delete(self, key: str) -> bool:
        """Remove the entry."""
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries in one transaction."""
        return self._changed_by(entries.drop, [self.names.short(key) for key in keys])

    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline."""
        return self._stored(0, entries.set_deadline, self._name(key), ttl)

    def persist(self, key: str) -> bool:
        """Take the deadline away."""
        return self._stored(0, entries.persist, self._name(key))

    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer."""
        name = self.names.short(key)
        try:
            return self._write(entries.incr, name, delta)
        except lmdb.MapFullError:
            return self._stored(0, entries.incr, name, delta)

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload if `expected` is there."""
        return self.move(key, key, expected, payload)

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry in one transaction."""
        names: tuple[Name, Name] = (self._name(source), self._name(target))
        return self._stored(_length(payload), entries.exchange, *names, expected, payload)

    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if `expected` is there."""
        return self._changed_by(entries.discard, self.names.short(key), expected)

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove matching keys, a batch in one transaction."""
        return sum(
            self._dropped([name for _key, name, _entry in found])
            for found in self._pages(prefix, pattern, batch)
        )

    def _dropped(self, names: Sequence[bytes]) -> int:
        """Remove entries, a few in one transaction: each copies the pages that it changes."""
        return sum(
            self._changed_by(entries.drop, names[begin : begin + _DROPPED_AT_ONCE])
            for begin in range(0, len(names), _DROPPED_AT_ONCE)
        )

    def clear(self, prefix: str) -> None:
        """Remove everything in the alias's two namespaces."""
        del prefix
        for start in (self.names.space, self.names.hashed):
            for rows in self._rows(start, 1000):
                self._dropped([name for name, _entry in rows])

    # -- leases and locks --------------------------------------------------------------------

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Put the lease where nothing is, or over a dead holder's.

        Where there is no room for it, the caller computes without one: its fill will find that.
        """
        name = self._name(key)
        while True:
            found = self._peek(key)
            seen = None if found is None else decode_payload(*found)
            if seen is not None and not self.is_orphaned(seen):
                return seen
            try:
                if self._stored(len(lease), entries.fill, name, seen, lease, ttl):
                    return None
            except StoreFull:
                return None

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload with this deadline if `expected` is there and there is room."""
        name = self._name(key)
        try:
            return self._stored(_length(payload), entries.fill, name, expected, payload, ttl)
        except StoreFull:
            self.discard(key, expected)
            return False

    def new_lease(self) -> bytes:
        """Return a lease of this process."""
        return lease_format.new_lease(self._shared.holders.own_name_or_unknown())

    def is_orphaned(self, lease: Payload) -> bool:
        """Return whether a lease's holder is dead."""
        return (
            isinstance(lease, bytes)
            and lease_format.is_lease(lease)
            and not self._shared.holders.is_alive(lease_format.holder_of(lease))
        )

    def _lock(self, name: str) -> str:
        return self.names.space.hex() + name

    def acquire_lock(self, name: str, ttl: float | None) -> int | None:
        """Take a lock that is free, over, or of a dead holder."""
        return self._shared.locks.acquire(self._lock(name), ttl)

    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        """Let the lock's time begin anew."""
        return self._shared.locks.renew(self._lock(name), token, ttl)

    def release_lock(self, name: str, token: int) -> bool:
        """Free the lock."""
        return self._shared.locks.release(self._lock(name), token)

    def lock_token(self, name: str) -> int | None:
        """Return the token that holds the lock."""
        return self._shared.locks.token(self._lock(name))

    # -- the process -------------------------------------------------------------------------

    def end_request(self) -> None:
        """Look at the files before they are used again."""
        self._shared.end_request()

    def close(self) -> None:
        """Close the files."""
        self._shared.close()


def _length(payload: Payload) -> int:
    return len(payload) if isinstance(payload, bytes) else 8 + payload.bit_length() // 8


def _close(store: "weakref.ref[LMDBStore]") -> None:
    if found := store():
        found.close()
