"""The locks of one alias, in a database of their own: no clear, culling or eviction reaches them.

A lock is *held* while its row names a holder that is alive, and its deadline, if any, is to come.
Invariant: of two tokens given for one name, the later is larger. Within a database it holds because
a token is larger than the row's last, or where there is no row, than every token whose row was ever
removed (`Pruned`); one write transaction looks and gives. Beyond the database, if its directory was
removed, it holds because a token is not below the wall clock in microseconds: as long as that clock
is not set back further than the locks were used at less than a million a second.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacheapp import clock
from cacheapp.backends.local.database_spec import DatabaseSpec
from cacheapp.backends.local.directory import LockTableDirectory
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
_OURS = (
    " WHERE name = ? AND token = ? AND holder IS NOT NULL AND (deadline IS NULL OR deadline > ?)"
)
_KEEP_S = 86_400.0
_PRUNE_EVERY_S = 600.0


class LockTable:
    """The table of locks; each method is one transaction. Names are bytes."""

    def __init__(self, connection: Connection, alive: Callable[[bytes], bool]) -> None:
        for statement in _SCHEMA:
            connection.execute(statement).fetchall()
        self.database_identity: Identity = (0, 0)
        self._alive = alive
        self._prune_at_s = clock.wall_s() + _PRUNE_EVERY_S  # a race means one more look

    def _holds(self, holder: bytes | None, deadline: float | None, now: float) -> bool:
        return holder is not None and (deadline is None or now < deadline) and self._alive(holder)

    def acquire(
        self, connection: Connection, name: bytes, holder: bytes, ttl: float | None
    ) -> int | None:
        """Take the lock unless it is held; return its token."""
        if self.token(connection, name) is not None:
            return None  # most tries of a lock that is held end here, without the write lock
        with connection.transaction():
            execute, now = connection.execute, clock.wall_s()
            row = execute(_ROW, (name,)).fetchone()
            if row is None:
                (last,) = execute("SELECT token FROM Pruned").fetchone()
            else:
                last, other, deadline = row
                if self._holds(other, deadline, now):
                    return None
            token = max(last + 1, int(now * 1e6))
            deadline = None if ttl is None else now + ttl
            execute("REPLACE INTO Locks VALUES (?, ?, ?, ?)", (name, token, holder, deadline))
            if now >= self._prune_at_s:
                self._prune_at_s = now + _PRUNE_EVERY_S
                self.prune(connection, now - _KEEP_S)
        return int(token)

    def renew(self, connection: Connection, name: bytes, token: int, ttl: float | None) -> bool:
        """Let the time begin anew if the token holds the lock."""
        with connection.transaction():
            now = clock.wall_s()
            deadline = None if ttl is None else now + ttl
            sql = "UPDATE Locks SET deadline = ?" + _OURS
            return connection.execute(sql, (deadline, name, token, now)).rowcount > 0

    def release(self, connection: Connection, name: bytes, token: int) -> bool:
        """Free the lock if the token holds it; the row stays, for its token."""
        with connection.transaction():
            sql = "UPDATE Locks SET holder = NULL" + _OURS
            return connection.execute(sql, (name, token, clock.wall_s())).rowcount > 0

    def token(self, connection: Connection, name: bytes) -> int | None:
        """Return the token that holds the lock."""
        row = connection.execute(_ROW, (name,)).fetchone()
        if row is None:
            return None
        token, holder, deadline = row
        return int(token) if self._holds(holder, deadline, clock.wall_s()) else None

    def prune(self, connection: Connection, before_s: float) -> int:
        """Remove rows that are free and whose tokens are older; return how many.

        Within a transaction. The largest of these tokens stays, as the floor for all names that
        have no row.
        """
        execute, now = connection.execute, clock.wall_s()
        sql = "SELECT name, token, holder, deadline FROM Locks WHERE token < ? LIMIT 10000"
        free = [
            (name, token)
            for name, token, holder, deadline in execute(sql, (int(before_s * 1e6),)).fetchall()
            if not self._holds(holder, deadline, now)
        ]
        for name, _token in free:
            execute("DELETE FROM Locks WHERE name = ?", (name,))
        if free:
            floor = max(token for _name, token in free)
            execute("UPDATE Pruned SET token = max(token, ?)", (floor,))
        return len(free)


class LockStore:
    """The lock primitives of a store. A database is opened by the first call."""

    def __init__(
        self, location: Path, name: str, timeout_s: float, holders: HolderRegistry
    ) -> None:
        self._holders = holders
        kind = DatabaseSpec(
            open=lambda _directory, connection: LockTable(connection, holders.is_alive),
            probes=_PROBES,
            pragmas=["PRAGMA synchronous = 1"],
            after_write=lambda _table, _connection: (
                None
            ),  # SQLite bounds the WAL: readers are brief
        )
        self.sessions = ShardedDatabase(
            LockTableDirectory(location, name, 1, timeout_s), 1, timeout_s, kind
        )

    def acquire(self, name: str, ttl: float | None) -> int | None:
        """Take a lock; return its token."""
        holder = self._holders.own_name()
        found: int | None = self._run(LockTable.acquire, name, holder, ttl)
        return found

    def renew(self, name: str, token: int, ttl: float | None) -> bool:
        """Let its time begin anew."""
        return bool(self._run(LockTable.renew, name, token, ttl))

    def release(self, name: str, token: int) -> bool:
        """Free a lock."""
        return bool(self._run(LockTable.release, name, token))

    def token(self, name: str) -> int | None:
        """Return the token that holds a lock."""
        found: int | None = self._run(LockTable.token, name, writing=False)
        return found

    def _run(self, work: Callable[..., Any], name: str, *args: Any, writing: bool = True) -> Any:
        encoded = name.encode("utf-8", "surrogatepass")
        return self.sessions.run(0, work, encoded, *args, writing=writing)
