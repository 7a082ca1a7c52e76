"""`Store` on diskcache: each primitive is one transaction in the shard of its key."""

import atexit
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from django.core.cache.backends.base import InvalidCacheKey

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.local_store import LocalStore
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.disk import entries, leases
from cacheapp.backends.disk.change_detection import ChangeDetector
from cacheapp.backends.disk.entries import (
    SELECT_DEADLINE,
    SELECT_HEAD,
    SELECT_VALUE,
    is_visible_head,
)
from cacheapp.backends.disk.shard import CountCulled, Shard, check_size
from cacheapp.backends.disk.shard_options import largest_value, shard_spec
from cacheapp.backends.disk.value_files import ValueFiles, payload_from_column
from cacheapp.backends.local.database_directory import DatabaseDirectory
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.lock_table import LockStore
from cacheapp.backends.local.process_identity import HolderRegistry
from cacheapp.backends.local.sharded_database import ShardedDatabase
from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable


class DiskStore(LocalStore):
    """One alias's shards, shared by all threads of this process.

    The part of a key after its version selects the shard, so all versions of a key are in one shard
    and `move` is one transaction. The version ends at the first colon after the known prefix,
    because the prefix itself may contain colons.

    `key_prefix` is `None` if the alias has a KEY_FUNCTION of its own, which may hide the version:
    then there is one shard.
    """

    def __init__(
        self,
        location: Path,
        name: str,
        key_prefix: str | None,
        options: Any,
        count_culled: CountCulled,
    ) -> None:
        shards = options["shards"] if key_prefix is not None else 1
        self._shards: int = shards
        self._version_start = len(key_prefix or "") + 1
        timeout_s: float = options["database_timeout"]
        self._largest = largest_value(options, shards)
        directory = DatabaseDirectory(location, name, shards, timeout_s)
        holders = HolderRegistry(directory.path / "holders", directory.prepare)
        super().__init__(holders, LockStore(location, name, timeout_s, holders))
        self.path = directory.path
        self._database = ShardedDatabase(
            directory, shards, timeout_s, shard_spec(options, shards, timeout_s, count_culled)
        )
        self._value_files = [ValueFiles(str(directory.shard(number))) for number in range(shards)]
        self._run = self._database.run
        self._read = self._database.read
        self._records_access = options["eviction_policy"] in {
            "least-recently-used",
            "least-frequently-used",
        }
        self._changes = ChangeDetector(self._database, self._shard_of)
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<DiskStore {self.path} {self._database.registry!r}>"

    # -- shards ------------------------------------------------------------------------------

    def _shard_of(self, key: str) -> int:
        try:
            return crc32(key[key.find(":", self._version_start) + 1 :].encode()) % self._shards
        except UnicodeEncodeError as exc:
            raise InvalidCacheKey(
                f"the key {key!r} contains half of a surrogate pair, which SQLite cannot store; "
                "nothing was done"
            ) from exc

    def _by_shard(self, keys: Sequence[str]) -> dict[int, list[str]]:
        shards: dict[int, list[str]] = {}
        for key in keys:
            shards.setdefault(self._shard_of(key), []).append(key)
        return shards

    # -- reads -------------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        """Return the payload: one SELECT, and for a large value its file."""
        number = self._shard_of(key)
        rows = self._read(number, SELECT_VALUE, key)
        if not rows:
            return None
        found: Payload | None
        value, filename, _, _ = row = rows[0]
        if filename is None:
            found = value if type(value) is not str else payload_from_column(value)
        else:
            found = None
            with suppress_failure(OSError):  # raised again below, as an error of the cache
                found = self._value_files[number].read(filename, row[2], value)
            if found is None:
                found = self._run(number, entries.load, key, row)
        if self._records_access and found is not None and not lease_format.is_lease(found):
            with suppress_failure(StoreFull, StoreUnavailable):  # only a hint for eviction
                self._run(number, entries.record_access, key)
        return found

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that exist; one SELECT per key."""
        found = {}
        for key in keys:
            payload = self.get(key)
            if payload is not None:
                found[key] = payload
        return found

    def has(self, key: str) -> bool:
        """Return True if there is a visible entry."""
        rows = self._read(self._shard_of(key), SELECT_HEAD, key)
        return bool(rows) and is_visible_head(rows[0][0], clock.wall_s())

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        rows = self._read(self._shard_of(key), SELECT_DEADLINE, key)
        if not rows:
            return 0.0
        deadline, head = rows[0]
        now = clock.wall_s()
        if head is not None:
            if not lease_format.is_visible(head, now):
                return 0.0
            deadline = lease_format.soft_deadline_s(head)
        return None if deadline is None else max(0.0, deadline - now)

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys, shard by shard in key order; each batch is one SELECT."""
        for number in range(self._shards):
            for rows in self._batches(number, prefix, pattern, batch):
                now = clock.wall_s()
                yield from [key for key, head in rows if is_visible_head(head, now)]

    def _batches(
        self, number: int, prefix: str, pattern: str, batch: int
    ) -> Iterator[list[tuple[str, bytes | None]]]:
        """Yield the rows of `SELECT_KEYS` that match, including leases."""
        matches = glob_to_regex(pattern).fullmatch
        # Keys with the prefix are contiguous in key order, and begin with the prefix itself.
        last, more = prefix, True
        if self._shard_of(prefix) == number and matches(""):
            yield [(prefix, head) for (head,) in self._read(number, SELECT_HEAD, prefix)]
        batch = max(1, batch)  # an empty batch would repeat for ever
        while more:
            rows = self._run(number, entries.keys_after, last, batch, writing=False)
            more = len(rows) == batch
            found = []
            for row in rows:
                last = row[0]
                if not last.startswith(prefix):
                    more = False
                    break
                if matches(last, len(prefix)):
                    found.append(row)
            yield found

    def figures(self) -> dict[str, int]:
        """Return what the directory contains: four statements for each shard."""
        found = [self._run(it, Shard.figures, writing=False) for it in range(self._shards)]
        used, limit = sum(each for _rows, each in found), self._largest * self._shards
        return {
            "entries": sum(rows for rows, _used in found),
            "bytes_used": used,
            "bytes_free": max(0, limit - used),
            "bytes_limit": limit,
        }

    # -- writes ------------------------------------------------------------------------------

    def check_size(self, length: int) -> None:
        """Raise `StoreFull` if a shard never has room for so many bytes."""
        check_size(length, self._largest, self.path)

    def set(self, key: str, payload: Payload, ttl: float | None, tag: str | None = None) -> None:
        """Store the payload."""
        self._run(self._shard_of(key), entries.put, [(key, payload)], ttl, tag)

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads: one transaction per shard, which stores all of its keys or none."""
        failed: list[str] = []
        error: CacheappError | None = None
        for number, keys in self._by_shard(list(payloads)).items():
            try:
                self._run(number, entries.put, [(key, payloads[key]) for key in keys], ttl, None)
            except (StoreFull, StoreUnavailable) as exc:
                if is_interruption(exc):
                    raise
                failed += keys
                error = exc
        if error is not None and len(failed) == len(payloads):
            raise error
        return failed

    def add(self, key: str, payload: Payload, ttl: float | None, tag: str | None = None) -> bool:
        """Store the payload if there is no visible entry."""
        return bool(self._run(self._shard_of(key), entries.add, key, payload, ttl, tag))

    def delete(self, key: str) -> bool:
        """Remove the entry."""
        return bool(self._run(self._shard_of(key), entries.delete_keys, [key]))

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries: one transaction per shard."""
        count = 0
        for number, here in self._by_shard(keys).items():
            count += self._run(number, entries.delete_keys, here)
        return count

    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline."""
        return bool(self._run(self._shard_of(key), leases.set_deadline, key, ttl))

    def persist(self, key: str) -> bool:
        """Remove the deadline."""
        return bool(self._run(self._shard_of(key), leases.persist, key))

    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer."""
        total: int | None = self._run(self._shard_of(key), entries.incr, key, delta)
        return total

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload if the key holds `expected`."""
        return bool(
            self._run(self._shard_of(key), entries.compare_and_move, key, key, expected, payload)
        )

    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if it holds `expected`."""
        return bool(self._run(self._shard_of(key), entries.discard, key, expected))

    # -- leases and locks --------------------------------------------------------------------

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Store the lease if nothing or a dead holder's lease is there."""
        found: Payload | None = self._run(
            self._shard_of(key), leases.lease, key, lease, ttl, self._holders.is_alive
        )
        return found

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload with this TTL if the key holds `expected`."""
        return bool(self._run(self._shard_of(key), leases.fill, key, expected, payload, ttl))

    def _look(self, seen: Mapping[str, Payload]) -> Mapping[str, Payload]:
        same = self._changes.unchanged(seen)
        return {**same, **self.get_many([key for key in seen if key not in same])}

    # -- more than one key -------------------------------------------------------------------

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry between two versions of its key, which are in one shard."""
        number = self._shard_of(source)
        if self._shard_of(target) != number:
            raise ValueError(f"{source!r} and {target!r} are not two versions of one key")
        return bool(self._run(number, entries.compare_and_move, source, target, expected, payload))

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove matching keys, each batch in one transaction."""
        count = 0
        for number in range(self._shards):
            for rows in self._batches(number, prefix, pattern, batch):
                if rows:
                    count += self._run(number, entries.delete_keys, [key for key, _head in rows])
        return count

    def clear(self, prefix: str) -> None:
        """Remove everything: no other alias uses this directory."""
        del prefix
        for number in range(self._shards):
            try:
                self._run(number, entries.clear)
            except StoreFull:  # a DELETE needs space for the WAL; removing the shard needs none
                self._database.remove(number)

    def evict(self, tag: str) -> int:
        """Remove the entries with this tag, in batches; return how many."""
        return sum(self._run(number, entries.evict, tag) for number in range(self._shards))

    # -- the process -------------------------------------------------------------------------

    def end_request(self) -> None:
        """Check the files before their next use."""
        self._database.end_request()

    def close(self) -> None:
        """Close the connections of all threads."""
        self._database.close()
        self._locks.database.close()

    def before_fork(self) -> None:
        """Wait for running operations, and close all connections."""
        try:
            self._database.registry.before_fork()
        finally:  # Python forks even if a signal handler raised
            self._locks.database.registry.before_fork()

    def after_fork_in_parent(self) -> None:
        """Resume operations."""
        self._locks.database.registry.after_fork_in_parent()
        self._database.registry.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, then resume operations."""
        self._locks.database.after_fork_in_child()
        self._database.after_fork_in_child()


def _close(store: "weakref.ref[DiskStore]") -> None:
    if found := store():
        found.close()
