"""`Store` on LMDB: each primitive is one transaction."""

import atexit
import weakref
from collections.abc import Iterator, Mapping, Sequence

import lmdb

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.local_store import LocalStore
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.lmdb import entries, eviction
from cacheapp.backends.lmdb.entries import Found
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.location import Location
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import (
    DEADLINE,
    KEY_LENGTH,
    NEVER,
    SEQUENCE,
    decode_payload,
    parse_header,
)
from cacheapp.backends.lmdb.reference_bits import EVICTED, EXPIRED, REJECTED
from cacheapp.backends.lmdb.write_retry import WriteRetry
from cacheapp.errors import StoreFull

_MAX_DELETED = 100  # entries in one transaction, which copies the pages that it changes
_CLEAR_BATCH = 1000


class LMDBStore(LocalStore):
    """One alias's keys in the environment of a LOCATION."""

    def __init__(self, location: Location, keys: KeyEncoder) -> None:
        super().__init__(location.holders, location.locks, lock_prefix=keys.prefix.hex())
        self.environment = location.environment
        self.keys = keys
        self._location = location
        self._encode = keys.encode
        self._read = self.environment.read
        self._write = self.environment.write
        self._retry = WriteRetry(self.environment)
        self._grow = self._retry.grow
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<LMDBStore {self.environment!r}>"

    # -- reads -------------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        """Return the payload, and set the entry's reference bit."""
        now = clock.boot_s()
        return self._payload(key, self.environment.get(self.keys.name(key), now), now)

    def _payload(self, key: str, raw: bytes | None, now: float) -> Payload | None:
        """Return the payload of a live entry, and set its reference bit."""
        header = parse_header(raw)
        if raw is None or header is None or header[DEADLINE] <= now:
            return None
        if header[KEY_LENGTH] and self.keys.decode(b"", raw, header) != key:
            return None  # another key with this hash
        reference_bits = self.environment.reference_bits
        slot = header[SEQUENCE] & reference_bits.mask
        if not reference_bits.bits[slot]:
            reference_bits.bits[slot] = 1
        return decode_payload(raw, header)

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads of the keys that exist, all from one snapshot."""
        rows = self._read(entries.peek_many, [self.keys.name(key) for key in keys])
        now = clock.boot_s()
        found = {}
        for key, raw in zip(keys, rows, strict=True):
            payload = self._payload(key, raw, now)
            if payload is not None:
                found[key] = payload
        return found

    def _peek(self, key: str) -> Found | None:
        return self._read(entries.peek, self.keys.name(key))

    def has(self, key: str) -> bool:
        """Return True if there is a visible entry."""
        found = self._peek(key)
        return found is not None and entries.is_visible(found)

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        found = self._peek(key)
        if found is None or not entries.is_visible(found):
            return 0.0
        payload = decode_payload(*found)
        if isinstance(payload, bytes) and lease_format.has_soft_deadline(payload):
            return max(0.0, lease_format.soft_deadline_s(payload) - clock.wall_s())
        deadline = found[1][DEADLINE]
        return None if deadline == NEVER else max(0.0, deadline - clock.boot_s())

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys. Each batch is one snapshot, which ends before its keys are yielded."""
        for found in self._matches(prefix, pattern, batch):
            yield from [key for key, _name, entry in found if entries.is_visible(entry)]

    def _matches(
        self, prefix: str, pattern: str, batch: int
    ) -> Iterator[list[tuple[str, bytes, Found]]]:
        """Yield key, name and entry of all matches, leases too; hashed keys come last."""
        is_match = glob_to_regex(pattern).fullmatch
        starts = [self.keys.name(prefix), self.keys.hashed_prefix]
        if not starts[0].startswith(self.keys.prefix):
            del starts[0]  # the prefix itself is so long that its name is a hash
        for start in starts:
            for rows in self._pages(start, batch):
                decoded = [
                    (self.keys.decode(name, *found), name, found)
                    for name, found in rows
                    if found is not None
                ]
                yield [
                    row
                    for row in decoded
                    if row[0].startswith(prefix) and is_match(row[0], len(prefix))
                ]

    def _pages(self, start: bytes, batch: int) -> Iterator[list[tuple[bytes, Found | None]]]:
        batch = max(1, batch)  # empty pages would never reach the end
        after = b""
        while True:
            rows = self._read(entries.page, start, after, batch)
            yield rows
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def figures(self) -> dict[str, int]:
        """Return what the whole directory contains, and counts of evictions and rejections."""
        return self._read(_figures)

    # -- writes ------------------------------------------------------------------------------

    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        """Store the payload. If there is no space, the older value is removed too."""
        encoded = self._encode(key)
        length = len(payload) if type(payload) is bytes else _length(payload)
        if length <= self.environment.max_entry_bytes:
            try:
                self._write(entries.put, encoded, payload, ttl)
            except lmdb.MapFullError:
                pass
            else:
                return
        try:
            self._grow(length, entries.put, encoded, payload, ttl)
        except StoreFull:
            self._retry.reject([encoded[0]], length)

    def reject(self, key: str, length: int) -> None:
        """Do what `set` does with a payload that no space can be freed for."""
        self._retry.reject([self._encode(key)[0]], length)

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads in one transaction, or none; return the keys that were not stored."""
        items = [(self._encode(key), payload) for key, payload in payloads.items()]
        length = sum(_length(payload) for payload in payloads.values())
        try:
            self._grow(length, entries.put_many, items, ttl)
        except StoreFull:
            self._retry.reject([name for (name, _), _ in items], length)
            return list(payloads)
        return []

    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if there is no entry."""
        if self.has(key):
            return False  # most losing calls of `add` end here, without a write
        return self._grow(_length(payload), entries.add, self._encode(key), payload, ttl)

    def delete(self, key: str) -> bool:
        """Remove the entry."""
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries in one transaction."""
        return self._retry.shrink(entries.delete, [self.keys.name(key) for key in keys])

    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline."""
        return self._grow(0, entries.set_deadline, self._encode(key), ttl)

    def persist(self, key: str) -> bool:
        """Remove the deadline."""
        return self._grow(0, entries.persist, self._encode(key))

    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer."""
        name = self.keys.name(key)
        try:
            return self._write(entries.incr, name, delta)
        except lmdb.MapFullError:
            return self._grow(0, entries.incr, name, delta)

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload if the entry holds `expected`."""
        return self.move(key, key, expected, payload)

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry in one transaction."""
        both = (self._encode(source), self._encode(target))
        return self._grow(_length(payload), entries.move, *both, expected, payload)

    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if it holds `expected`."""
        return self._retry.shrink(entries.discard, self.keys.name(key), expected)

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove matching keys, some in each transaction."""
        return sum(
            self._delete([name for _key, name, _entry in found])
            for found in self._matches(prefix, pattern, batch)
        )

    def _delete(self, names: Sequence[bytes]) -> int:
        return sum(
            self._retry.shrink(entries.delete, names[begin : begin + _MAX_DELETED])
            for begin in range(0, len(names), _MAX_DELETED)
        )

    def clear(self, prefix: str) -> None:
        """Remove all entries in the alias's two namespaces."""
        del prefix
        for start in (self.keys.prefix, self.keys.hashed_prefix):
            for rows in self._pages(start, _CLEAR_BATCH):
                self._delete([name for name, _entry in rows])

    # -- leases ------------------------------------------------------------------------------

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Store the lease if there is no entry, or only the lease of a dead holder.

        If there is no space for it, the caller computes without a lease, and its `fill` fails.
        """
        encoded = self._encode(key)
        while True:
            found = self._peek(key)
            seen = None if found is None else decode_payload(*found)
            if seen is not None and not self.is_orphaned(seen):
                return seen
            try:
                if self._grow(len(lease), entries.fill, encoded, seen, lease, ttl):
                    return None
            except StoreFull:
                return None

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if the entry holds `expected` and there is space."""
        encoded = self._encode(key)
        try:
            return self._grow(_length(payload), entries.fill, encoded, expected, payload, ttl)
        except StoreFull:
            self.discard(key, expected)
            return False

    # -- the process -------------------------------------------------------------------------

    def end_request(self) -> None:
        """Check the files before their next use."""
        self._location.end_request()

    def close(self) -> None:
        """Close the files."""
        self._location.close()


def _length(payload: Payload) -> int:
    return len(payload) if isinstance(payload, bytes) else 8 + payload.bit_length() // 8


def _figures(env: OpenEnvironment, transaction: Transaction) -> dict[str, int]:
    used = eviction.used_bytes(env, transaction)
    counters = env.reference_bits.counters
    readers = env.lmdb.readers().count("\n") - 1  # one line each, below a title
    return {
        "entries": transaction.stat(env.entries)["entries"],
        "bytes_used": used,
        "bytes_free": max(0, env.limits.usable_bytes - used),
        "bytes_limit": env.limits.usable_bytes,
        "bytes_reserved": env.limits.map_bytes,
        "evictions": counters[EVICTED],
        "expirations": counters[EXPIRED],
        "sets_rejected": counters[REJECTED],
        "reader_slots": max(0, readers),
    }


def _close(store: "weakref.ref[LMDBStore]") -> None:
    if found := store():
        found.close()
