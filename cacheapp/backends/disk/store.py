"""`Store` on diskcache: each primitive as one transaction in the shard of its key."""

import atexit
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.change_detection import ChangeDetector
from cacheapp.backends.disk.leases import Shard
from cacheapp.backends.disk.reads import Reads
from cacheapp.backends.disk.shard_options import shard_spec
from cacheapp.backends.disk.value_files import ValueFiles
from cacheapp.backends.local.database_directory import DatabaseDirectory
from cacheapp.backends.local.lock_table import LockStore
from cacheapp.backends.local.process_identity import HolderRegistry
from cacheapp.backends.local.sharded_database import ShardedDatabase
from cacheapp.backends.local.sqlite_connections import Connection
from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable


class DiskStore(Reads):
    """One alias's shards, shared by all threads of this process.

    `key_prefix` is `None` with a KEY_FUNCTION of the project's own, which may hide the version:
    there is one shard then.
    """

    def __init__(self, location: Path, name: str, key_prefix: str | None, options: Any) -> None:
        shards = options["shards"] if key_prefix is not None else 1
        self._count: int = shards
        self._version_at = len(key_prefix or "") + 1
        timeout_s: float = options["database_timeout"]
        directory = DatabaseDirectory(location, name, shards, timeout_s)
        holders = HolderRegistry(directory.path / "holders", directory.prepare)
        super().__init__(holders, LockStore(location, name, timeout_s, holders))
        self.path = directory.path
        self._sessions = ShardedDatabase(
            directory, shards, timeout_s, shard_spec(options, shards, timeout_s)
        )
        self._files = [ValueFiles(str(directory.shard(number))) for number in range(shards)]
        self._run = self._sessions.run
        self._read = self._sessions.read
        self._records_access = options["eviction_policy"] in {
            "least-recently-used",
            "least-frequently-used",
        }
        self._changes = ChangeDetector(self._sessions, self._shard_number)
        atexit.register(_close, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<DiskStore {self.path} {self._sessions.registry!r}>"

    # -- writes ------------------------------------------------------------------------------

    def set(self, key: str, payload: Payload, ttl: float | None, tag: str | None = None) -> None:
        """Store the payload."""
        self._run(self._shard_number(key), Shard.put, [(key, payload)], ttl, tag)

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
        return bool(self._run(self._shard_number(key), Shard.add, key, payload, ttl, tag))

    def delete(self, key: str) -> bool:
        """Remove the entry."""
        return bool(self._run(self._shard_number(key), Shard.drop_keys, [key]))

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove the entries: one transaction per shard."""
        count = 0
        for number, here in self._by_shard(keys).items():
            count += self._run(number, Shard.drop_keys, here)
        return count

    def touch(self, key: str, ttl: float | None) -> bool:
        """Replace the deadline."""
        return bool(self._run(self._shard_number(key), Shard.set_deadline, key, ttl))

    def persist(self, key: str) -> bool:
        """Take the deadline away."""
        return bool(self._run(self._shard_number(key), Shard.persist, key))

    def incr(self, key: str, delta: int) -> int | None:
        """Add to the integer."""
        total: int | None = self._run(self._shard_number(key), Shard.incr, key, delta)
        return total

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        """Store the payload if `expected` is there."""
        return bool(
            self._run(self._shard_number(key), Shard.compare_and_move, key, key, expected, payload)
        )

    def discard(self, key: str, expected: Payload) -> bool:
        """Remove the entry if `expected` is there."""
        return bool(self._run(self._shard_number(key), Shard.discard, key, expected))

    # -- leases and locks --------------------------------------------------------------------

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Put the lease where nothing is, or over a dead holder's."""
        found: Payload | None = self._run(
            self._shard_number(key), Shard.lease, key, lease, ttl, self._holders.is_alive
        )
        return found

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload with this deadline if `expected` is there."""
        return bool(self._run(self._shard_number(key), Shard.fill, key, expected, payload, ttl))

    def _look(self, seen: Mapping[str, Payload]) -> Mapping[str, Payload]:
        same = self._changes.unchanged(seen)
        return {**same, **self.get_many([key for key in seen if key not in same])}

    # -- more than one key -------------------------------------------------------------------

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry between two versions of its key, which one shard holds."""
        number = self._shard_number(source)
        if self._shard_number(target) != number:
            raise ValueError(f"{source!r} and {target!r} are not two versions of one key")
        return bool(self._run(number, Shard.compare_and_move, source, target, expected, payload))

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        """Remove matching keys, a batch in one transaction."""
        count = 0
        for number in range(self._count):
            for rows in self._batches(number, prefix, pattern, batch):
                if rows:
                    count += self._run(number, Shard.drop_keys, [key for key, _head in rows])
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
        self._locks.database.close()

    def before_fork(self) -> None:
        """Wait for operations in flight, and close all connections."""
        try:
            self._sessions.registry.before_fork()
        finally:  # Python forks whatever a signal handler raised meanwhile
            self._locks.database.registry.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._locks.database.registry.after_fork_in_parent()
        self._sessions.registry.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, then go on."""
        self._locks.database.after_fork_in_child()
        self._sessions.after_fork_in_child()


def _close(store: "weakref.ref[DiskStore]") -> None:
    if found := store():
        found.close()


def _clear(shard: Shard, con: Connection) -> None:
    shard.use(con, shard.clear)


def _evict(shard: Shard, con: Connection, tag: str) -> int:
    count: int = shard.use(con, shard.evict, tag)
    return count
