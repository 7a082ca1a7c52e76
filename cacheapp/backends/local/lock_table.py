"""The locks of one alias, in a database of their own, out of reach of clear, culling and eviction.

A lock is *held* while its row names a living holder and its deadline, if any, has not passed. No
holder survives the boot of the machine, so deadlines count from it, and no step of the wall clock
moves them.

Invariant: if one name gets two tokens, the later is larger. Within a database this holds because a
new token is larger than the row's last one; or, without a row, larger than the token of every row
that was ever removed (`Pruned`). One write transaction reads these and issues the token. After the
directory was removed, it holds because a token is at least the wall clock in microseconds: as long
as locks are acquired less than a million times a second, and the clock is not set back below the
tokens of the removed database.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacheapp import clock
from cacheapp.backends.local.database_directory import LockTableDirectory
from cacheapp.backends.local.database_spec import DatabaseSpec
from cacheapp.backends.local.process_identity import HolderRegistry
from cacheapp.backends.local.sharded_database import ShardedDatabase
from cacheapp.backends.local.slot_file import Identity
from cacheapp.backends.local.sqlite_connections import Connection

_SCHEMA = (
    "PRAGMA journal_mode = wal",
    """CREATE TABLE IF NOT EXISTS Locks (
        name BLOB PRIMARY KEY, token INTEGER NOT NULL, holder BLOB, deadline REAL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS Pruned (
        one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL
    )""",
    "INSERT OR IGNORE INTO Pruned VALUES (1, 0)",
)
_PROBES = ("SELECT name, token, holder, deadline FROM Locks LIMIT 1", "SELECT token FROM Pruned")
_ROW = "SELECT token, holder, deadline FROM Locks WHERE name = ?"
_IF_HELD_BY = (
    " WHERE name = ? AND token = ? AND holder IS NOT NULL AND (deadline IS NULL OR deadline > ?)"
)
_KEEP_S = 86_400.0
_PRUNE_EVERY_S = 600.0


class LockTable:
    """The table of locks. Each method but `prune` is one transaction; names are bytes."""

    def __init__(self, connection: Connection, alive: Callable[[bytes], bool]) -> None:
        for statement in _SCHEMA:
            connection.execute(statement).fetchall()
        self.database_identity: Identity = (0, 0)
        self._alive = alive
        self._prune_at_s = clock.boot_s() + _PRUNE_EVERY_S  # a race costs one more prune

    def _holds(self, holder: bytes | None, deadline: float | None, now: float) -> bool:
        return holder is not None and (deadline is None or now < deadline) and self._alive(holder)

    def acquire(
        self,
        connection: Connection,
        name: bytes,
        holder: bytes,
        ttl: float | None,
        note: Callable[[int], None],
    ) -> int | None:
        """Acquire the lock unless it is held; return its token, or `None`.

        `note` is called with the token before it is stored, unless a transaction that is rolled
        back may leave the same token to another caller: the clock is behind the last one.
        """
        if self.token(connection, name) is not None:
            return None  # most attempts on a held lock end here, without the write lock
        with connection.sqlite:
            connection.execute("BEGIN IMMEDIATE")
            execute, now = connection.execute, clock.boot_s()
            row = execute(_ROW, (name,)).fetchone()
            if row is None:
                (last,) = execute("SELECT token FROM Pruned").fetchone()
            else:
                last, other, deadline = row
                if self._holds(other, deadline, now):
                    return None
            wall_s = clock.wall_s()
            token = max(last + 1, int(wall_s * 1e6))
            deadline = None if ttl is None else now + ttl
            if token > last + 1:
                note(token)
            execute("REPLACE INTO Locks VALUES (?, ?, ?, ?)", (name, token, holder, deadline))
            if now >= self._prune_at_s:
                self._prune_at_s = now + _PRUNE_EVERY_S
                self.prune(connection, wall_s - _KEEP_S)
        return int(token)

    def renew(self, connection: Connection, name: bytes, token: int, ttl: float | None) -> bool:
        """Replace the deadline if the token holds the lock."""
        with connection.sqlite:
            connection.execute("BEGIN IMMEDIATE")
            now = clock.boot_s()
            deadline = None if ttl is None else now + ttl
            sql = "UPDATE Locks SET deadline = ?" + _IF_HELD_BY
            return connection.execute(sql, (deadline, name, token, now)).rowcount > 0

    def release(self, connection: Connection, name: bytes, token: int) -> bool:
        """Release the lock if the token holds it. The row stays, for its token."""
        with connection.sqlite:
            connection.execute("BEGIN IMMEDIATE")
            sql = "UPDATE Locks SET holder = NULL" + _IF_HELD_BY
            return connection.execute(sql, (name, token, clock.boot_s())).rowcount > 0

    def token(self, connection: Connection, name: bytes) -> int | None:
        """Return the token that holds the lock, or `None`."""
        row = connection.execute(_ROW, (name,)).fetchone()
        if row is None:
            return None
        token, holder, deadline = row
        return int(token) if self._holds(holder, deadline, clock.boot_s()) else None

    def prune(self, connection: Connection, before_s: float) -> int:
        """Remove free rows with tokens older than `before_s`; return their number.

        Called within a transaction. The largest removed token becomes the floor for all names
        that have no row.
        """
        execute, now = connection.execute, clock.boot_s()
        sql = "SELECT name, token, holder, deadline FROM Locks WHERE token < ? LIMIT 10000"
        removable = [
            (name, token)
            for name, token, holder, deadline in execute(sql, (int(before_s * 1e6),)).fetchall()
            if not self._holds(holder, deadline, now)
        ]
        for name, _token in removable:
            execute("DELETE FROM Locks WHERE name = ?", (name,))
        if removable:
            floor = max(token for _name, token in removable)
            execute("UPDATE Pruned SET token = max(token, ?)", (floor,))
        return len(removable)


class LockStore:
    """The lock primitives of a store. The first call opens the database."""

    def __init__(
        self, location: Path, name: str, timeout_s: float, holders: HolderRegistry
    ) -> None:
        self._holders = holders
        spec = DatabaseSpec(
            open=lambda _directory, connection: LockTable(connection, holders.is_alive),
            probes=_PROBES,
            pragmas=["PRAGMA synchronous = 1"],
            # SQLite itself keeps the WAL small, because all reads are short.
            after_write=lambda _table, _connection: None,
        )
        self.database = ShardedDatabase(
            LockTableDirectory(location, name, 1, timeout_s), 1, timeout_s, spec
        )

    def acquire(self, name: str, ttl: float | None, note: Callable[[int], None]) -> int | None:
        """Acquire a lock; return its token, or `None` if it is held. `note`: see `LockTable`."""
        holder = self._holders.own_name()
        found: int | None = self._run(LockTable.acquire, name, holder, ttl, note)
        return found

    def renew(self, name: str, token: int, ttl: float | None) -> bool:
        """Replace the deadline if the token holds the lock."""
        return bool(self._run(LockTable.renew, name, token, ttl))

    def release(self, name: str, token: int) -> bool:
        """Release a lock if the token holds it."""
        return bool(self._run(LockTable.release, name, token))

    def token(self, name: str) -> int | None:
        """Return the token that holds a lock, or `None`."""
        found: int | None = self._run(LockTable.token, name, writing=False)
        return found

    def _run(self, work: Callable[..., Any], name: str, *args: Any, writing: bool = True) -> Any:
        encoded = name.encode("utf-8", "surrogatepass")
        return self.database.run(0, work, encoded, *args, writing=writing)
