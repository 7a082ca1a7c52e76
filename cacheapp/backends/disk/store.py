"""`Store` on diskcache: which shard has which key, and each primitive as one transaction there."""

import atexit
import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from cacheapp import clock
from cacheapp.backends.disk.connections import Connection
from cacheapp.backends.disk.directory import AliasDirectory
from cacheapp.backends.disk.entries import DEADLINE, GET, HAS, KEYS, Shard
from cacheapp.backends.disk.files import ValueFiles, payload_of
from cacheapp.backends.disk.session import Sessions
from cacheapp.backends.disk.upkeep import Upkeep
from cacheapp.backends.patterns import glob_to_regex
from cacheapp.backends.store import Payload, Store
from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable

_PAGE = 4096
_SHM_BYTES = 32 * 1024


class DiskStore(Store):
    """One alias's shards, shared by all threads of this process.

    A key is routed by what follows its version, so all versions of a key are in one shard and
    `move` is one transaction. The version is found by position, as what stands between the known
    prefix and the next colon, because prefixes may contain colons. `key_prefix` is `None` with a
    KEY_FUNCTION of the project's own, which may hide the version: there is one shard then.
    """

    def __init__(self, location: Path, name: str, key_prefix: str | None, options: Any) -> None:
        shards = options["shards"] if key_prefix is not None else 1
        self._count: int = shards
        self._version_at = len(key_prefix or "") + 1
        budget = options["size_limit"] // shards
        wal_pages = max(16, min(1000, budget // 16 // _PAGE))
        wal_bytes = wal_pages * _PAGE
        settings = {
            **{name: options[name] for name in _DISKCACHE_SETTINGS},
            "tag_index": int(options["tag_index"]),
            # What the rows may use; the rest of the budget is the WAL's and its index's, and that
            # of pages that were freed, which the file keeps until the next checkpoint.
            "size_limit": max(budget // 4, budget - 4 * wal_bytes - _SHM_BYTES),
            "sqlite_journal_mode": "wal",
            "sqlite_wal_autocheckpoint": wal_pages,
            "sqlite_journal_size_limit": wal_bytes,
        }
        timeout_s: float = options["database_timeout"]
        directory = AliasDirectory(location, name, shards, timeout_s)
        self.path = directory.path
        upkeep = Upkeep(2 * wal_bytes, timeout_s)
        self._sessions = Sessions(directory, shards, timeout_s, settings, upkeep)
        self._files = [ValueFiles(str(directory.shard(number))) for number in range(shards)]
        self._run = self._sessions.run
        self._read = self._sessions.read
        self._notes_use = options["eviction_policy"] in {
            "least-recently-used",
            "least-frequently-used",
        }
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<DiskStore {self.path} {self._sessions.handles!r}>"

    def _number(self, key: str) -> int:
        if self._count == 1:
            return 0
        return crc32(key[key.find(":", self._version_at) + 1 :].encode()) % self._count

    def _by_shard(self, keys: Sequence[str]) -> dict[int, list[str]]:
        shards: dict[int, list[str]] = {}
        for key in keys:
            shards.setdefault(self._number(key), []).append(key)
        return shards

    # -- reads -------------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        """Return the payload: one SELECT, and for a large value its file."""
        number = self._number(key)
        rows = self._read(number, GET, key)
        if not rows:
            return None
        found: Payload | None
        value, filename, _, _ = row = rows[0]
        if filename is None:
            found = value if type(value) is not str else payload_of(value)
        else:
            found = self._files[number].load(filename, row[2])
            if found is None:
                found = self._run(number, Shard.load, key, row)
        if self._notes_use and found is not None:
            with contextlib.suppress(StoreFull, StoreUnavailable):  # it is only a hint
                self._run(number, Shard.note_use, key)
        return found

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that are there; one SELECT per key."""
        found = {}
        for key in keys:
            payload = self.get(key)
            if payload is not None:
                found[key] = payload
        return found

    def has(self, key: str) -> bool:
        """Return whether an entry is there."""
        return bool(self._read(self._number(key), HAS, key))

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        rows = self._read(self._number(key), DEADLINE, key)
        if not rows:
            return 0.0
        deadline: float | None = rows[0][0]
        return None if deadline is None else max(0.0, deadline - clock.wall_s())

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys, shard by shard in the order of keys; each batch is one SELECT."""
        for number in range(self._count):
            for keys in self._batches(number, prefix, pattern, batch):
                yield from keys

    def _batches(self, number: int, prefix: str, pattern: str, batch: int) -> Iterator[list[str]]:
        matches = glob_to_regex(pattern).fullmatch
        # What begins with the prefix stands together in the order of keys, from the prefix on.
        last, going = prefix, True
        if self.has(prefix) and self._number(prefix) == number and matches(""):
            yield [prefix]
        while going:
            rows = self._run(number, _keys_after, last, batch, writing=False)
            going = len(rows) == batch
            found = []
            for (key,) in rows:
                if not key.startswith(prefix):
                    going = False
                    break
                if matches(key, len(prefix)):
                    found.append(key)
                last = key
            yield found

    # -- writes ------------------------------------------------------------------------------

    def set(self, key: str, payload: Payload, ttl: float | None, tag: str | None = None) -> None:
        """Store the payload."""
        self._run(self._number(key), Shard.put, [(key, payload)], ttl, tag)

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads: one transaction per shard, which stores all of its keys or none."""
        failed: list[str] = []
        error: CacheappError | None = None
        for number, keys in self._by_shard(list(payloads)).items():
            try:
                self._run(number, Shard.put, [(key, payloads[key]) for key in keys], ttl, None)
            except (StoreFull, StoreUnavailable) as exc:
                failed += keys
                error = exc
        if error is not None and len(failed) == len(payloads):
            raise error
        return failed

    def add(self, key: str, payload: Payload, ttl: float | None, tag: str | None = None) -> bool:
        """Store the payload if nothing is there."""
        return bool(self._run(self._number(key), Shard.add, key, payload, ttl, tag))

    def delete(self, key: str) -> bool:
        """Remove the entry."""
        return bool(self._run(self._number(key), Shard.drop_keys, [key]))

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries: one transaction per shard."""
        count = 0
        for number, here in self._by_shard(keys).items():
            count += self._run(number, Shard.drop_keys, here)
        return count

    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline."""
        return bool(self._run(self._number(key), Shard.set_deadline, key, ttl))

    def persist(self, key: str) -> bool:
        """Take the deadline away."""
        return bool(self._run(self._number(key), Shard.persist, key))

    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer."""
        total: int | None = self._run(self._number(key), Shard.incr, key, delta)
        return total

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload if `expected` is there."""
        return bool(self._run(self._number(key), Shard.exchange, key, key, expected, payload))

    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if `expected` is there."""
        return bool(self._run(self._number(key), Shard.discard, key, expected))

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry between two versions of its key, which one shard holds."""
        number = self._number(source)
        if self._number(target) != number:
            raise ValueError(f"{source!r} and {target!r} are not two versions of one key")
        return bool(self._run(number, Shard.exchange, source, target, expected, payload))

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove matching keys, a batch in one transaction."""
        count = 0
        for number in range(self._count):
            for keys in self._batches(number, prefix, pattern, batch):
                if keys:
                    count += self._run(number, Shard.drop_keys, keys)
        return count

    def clear(self, prefix: str) -> None:
        """Remove everything: the alias has its directory to itself."""
        del prefix
        for number in range(self._count):
            try:
                self._run(number, _clear)
            except StoreFull:  # even a delete is written down first; a whole shard can just go
                self._sessions.remove(number)

    def evict(self, tag: str) -> int:
        """Remove the entries with this tag, in batches; return how many."""
        return sum(self._run(number, _evict, tag) for number in range(self._count))

    # -- the process -------------------------------------------------------------------------

    def end_request(self) -> None:
        """Look at the files before they are used again."""
        self._sessions.end_request()

    def close(self) -> None:
        """Close the connections of all threads."""
        self._sessions.close()

    def before_fork(self) -> None:
        """Wait for operations in flight, and close all connections."""
        self._sessions.handles.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._sessions.handles.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, then go on."""
        self._sessions.after_fork_in_child()


_DISKCACHE_SETTINGS = (
    *("cull_limit", "eviction_policy", "disk_min_file_size"),
    *("sqlite_cache_size", "sqlite_mmap_size", "sqlite_synchronous"),
)


def _close(store: "weakref.ref[DiskStore]") -> None:
    if found := store():
        found.close()


def _keys_after(_shard: Shard, con: Connection, last: str, batch: int) -> list[tuple[str]]:
    return con.execute(KEYS, (last, clock.wall_s(), batch)).fetchall()


def _clear(shard: Shard, con: Connection) -> None:
    shard.use(con, shard.clear)


def _evict(shard: Shard, con: Connection, tag: str) -> int:
    count: int = shard.use(con, shard.evict, tag)
    return count
