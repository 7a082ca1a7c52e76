"""`Store` on LMDB: each primitive is one transaction, and what is done where there is no room."""

import atexit
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends import forms
from cacheapp.backends.forms import Payload
from cacheapp.backends.lmdb import entries, room
from cacheapp.backends.lmdb.entries import Found, Name
from cacheapp.backends.lmdb.environment import Session, Transaction
from cacheapp.backends.lmdb.marks import EVICTED, EXPIRED, TURNED_AWAY
from cacheapp.backends.lmdb.names import Names
from cacheapp.backends.lmdb.records import NEVER, head_of, payload_of
from cacheapp.backends.lmdb.shared import SharedEnvironment
from cacheapp.backends.patterns import glob_to_regex
from cacheapp.backends.quiet import Quiet
from cacheapp.backends.store import Store
from cacheapp.errors import StoreFull

logger = logging.getLogger(__name__)
_no_room = Quiet()
_DOUBLINGS = 5
_DROPPED_AT_ONCE = 100
_LEAST_WANTED = 64 * 1024
_PAUSES_S = [0.0, *(0.001 * 2**step for step in range(8))]  # a quarter of a second together
ResultT = TypeVar("ResultT")


class LMDBStore(Store):
    """One alias's keys in the environment of a LOCATION."""

    sees_deaths: ClassVar[bool] = True

    def __init__(self, shared: SharedEnvironment, names: Names) -> None:
        super().__init__()
        self.environment = shared.environment
        self._shared = shared
        self.names = names
        self._name = names.of
        self._read = self.environment.read
        self._write = self.environment.write
        self._largest_bytes = self.environment.limits.largest_bytes
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<LMDBStore {self.environment!r}>"

    # -- reads -------------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        """Return the payload: one read transaction, and a mark that the entry was used."""
        return self._payload(key, self.environment.get(self.names.short(key)), clock.boot_s())

    def _payload(self, key: str, raw: bytes | None, now: float) -> Payload | None:
        """Return the payload of an entry that is alive, and mark it."""
        head = head_of(raw)
        if raw is None or head is None or head[3] <= now:
            return None
        if head[2] and self.names.key(b"", raw, head) != key:
            return None  # another key with this hash
        session = self.environment.session
        if session is not None:
            marks = session.marks
            slot = head[5] & marks.mask
            if not marks.used[slot]:
                marks.used[slot] = 1
        return payload_of(raw, head)

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that are there, all of one snapshot."""
        rows = self._read(entries.peek_many, [self.names.short(key) for key in keys])
        now = clock.boot_s()
        found = {}
        for key, raw in zip(keys, rows, strict=True):
            payload = self._payload(key, raw, now)
            if payload is not None:
                found[key] = payload
        return found

    def _peek(self, key: str) -> Found | None:
        return self._read(entries.peek, self.names.short(key))

    def has(self, key: str) -> bool:
        """Return whether an entry is there."""
        found = self._peek(key)
        return found is not None and entries.is_visible(found)

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        found = self._peek(key)
        if found is None or not entries.is_visible(found):
            return 0.0
        payload = payload_of(*found)
        if isinstance(payload, bytes) and forms.is_soft(payload):
            return max(0.0, forms.soft_deadline_s(payload) - clock.wall_s())
        deadline = found[1][3]
        return None if deadline == NEVER else max(0.0, deadline - clock.boot_s())

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys; each batch is one snapshot, and none is held between two keys."""
        for found in self._pages(prefix, pattern, batch):
            yield from [key for key, _name, entry in found if entries.is_visible(entry)]

    def _pages(
        self, prefix: str, pattern: str, batch: int
    ) -> Iterator[list[tuple[str, bytes, Found]]]:
        """Yield key, name and entry of what matches, leases too; long keys come last."""
        matches = glob_to_regex(pattern).fullmatch
        ranges = [self.names.short(prefix), self.names.hashed]
        if not ranges[0].startswith(self.names.space):
            del ranges[0]  # so long that its own name is a hash
        for start in ranges:
            for rows in self._rows(start, batch):
                named = [
                    (self.names.key(name, *found), name, found)
                    for name, found in rows
                    if found is not None
                ]
                yield [
                    row
                    for row in named
                    if row[0].startswith(prefix) and matches(row[0], len(prefix))
                ]

    def _rows(self, start: bytes, batch: int) -> Iterator[list[tuple[bytes, Found | None]]]:
        batch = max(1, batch)  # with none at a time there would be no end
        after = b""
        while True:
            rows = self._read(entries.page, start, after, batch)
            yield rows
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def figures(self) -> dict[str, int]:
        """Return what the whole directory holds, and what its room made necessary."""
        return self._read(_figures)

    # -- writes ------------------------------------------------------------------------------

    def _stored(self, length: int, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Do a write that may need new pages; raise `StoreFull` if room cannot be made for it."""
        if length <= self.environment.limits.largest_bytes:
            for attempt, pause_s in enumerate(_PAUSES_S):
                try:
                    return self._changed_by(work, *args, growing=True)
                except lmdb.MapFullError:  # no run of free pages is long enough
                    wanted = max(_LEAST_WANTED, 2 * length) << min(attempt, _DOUBLINGS)
                    self._changed_by(room.make_room, wanted)
                time.sleep(pause_s)  # a reader may keep them that waits for its turn of a processor
        raise StoreFull(
            f"{self.environment.place.path}: no room for {length} bytes; nothing was stored"
        )

    def _changed_by(
        self, work: Callable[..., ResultT], *args: Any, growing: bool = False
    ) -> ResultT:
        """Do a write that must find the few pages that any write needs.

        One that is `growing` may raise `lmdb.MapFullError`: there are pages, but not for this.

        If they are missing, some reader is in the middle of a look and keeps all pages of its
        moment. Mostly it only waits for its turn of a processor. If it stands still for long, the
        environment is given up for an empty one: an entry that has to go must not stay.
        """
        for pause_s in _PAUSES_S:
            try:
                return self.environment.write(work, *args)
            except lmdb.MapFullError:
                if self._has_pages() and growing:
                    raise
            time.sleep(pause_s)
        if self.environment.give_up():
            logger.warning(
                "%s: a process that stands still in the middle of a read keeps all pages; the "
                "cache was emptied",
                self.environment.place.path,
                extra={"event": "cache_emptied"},
            )
        return self.environment.write(work, *args)

    def _has_pages(self) -> bool:
        """Return whether a write of next to nothing finds pages."""
        try:
            self.environment.write(room.probe)
        except lmdb.MapFullError:
            return False
        return True

    def _turned_away(self, names: Sequence[bytes], length: int) -> None:
        """Leave no older value where a new one found no room."""
        self._changed_by(entries.turn_away, names)
        withheld = _no_room.due()
        if withheld is not None:
            logger.warning(
                "%s: no room for %d bytes, so they were not stored; %d more since the last such "
                "line",
                self.environment.place.path,
                length,
                withheld,
                extra={"event": "cache_no_room"},
            )

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
            seen = None if found is None else payload_of(*found)
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
        return forms.new_lease(self._shared.holders.mine_or_unknown())

    def is_orphaned(self, lease: Payload) -> bool:
        """Return whether a lease's holder is dead."""
        return (
            isinstance(lease, bytes)
            and forms.is_lease(lease)
            and not self._shared.holders.alive(forms.holder_of(lease))
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


def _figures(session: Session, transaction: Transaction) -> dict[str, int]:
    used = room.used_bytes(session, transaction)
    numbers = session.marks.numbers
    readers = session.environment.readers().count("\n") - 1  # a line for each, below a title
    return {
        "entries": transaction.stat(session.entries)["entries"],
        "bytes_used": used,
        "bytes_free": max(0, session.limits.usable_bytes - used),
        "bytes_reserved": session.limits.map_bytes,
        "evictions": numbers[EVICTED],
        "expirations": numbers[EXPIRED],
        "sets_without_room": numbers[TURNED_AWAY],
        "reader_slots": max(0, readers),
    }


def _length(payload: Payload) -> int:
    return len(payload) if isinstance(payload, bytes) else 8 + payload.bit_length() // 8


def _close(store: "weakref.ref[LMDBStore]") -> None:
    if found := store():
        found.close()
