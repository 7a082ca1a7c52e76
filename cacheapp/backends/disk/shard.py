"""One shard: a `diskcache.Cache` whose connections, transactions and value files are ours.

From diskcache come the schema with its triggers, the settings, culling and tags; docs/why.md lists
what of it is private. What the cache does with a shard stands in `entries`.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import diskcache
from diskcache.core import DEFAULT_SETTINGS, ENOVAL, EVICTION_POLICY

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.value_files import ORPHAN_AGE_S, Columns, ValueFiles
from cacheapp.backends.local.slot_file import Identity
from cacheapp.backends.local.sqlite_connections import Connection
from cacheapp.backends.local.sqlite_errors import DatabaseDamaged
from cacheapp.errors import StoreFull

_CULL_AT_MOST = 1000
PROBES = (
    "SELECT key, raw, store_time, expire_time, tag, size, mode, filename, value FROM Cache LIMIT 1",
    "SELECT key, value FROM Settings",
)
_SIZE = "SELECT value FROM Settings WHERE key = 'size'"
_COUNT = "SELECT value FROM Settings WHERE key = 'count'"

_UPDATE_SETTING = "UPDATE Settings SET value = ? WHERE key = ?"
# A new database is not synced to the disk step by step, which can take seconds where others write
# much: should the machine crash, it is found damaged, and was empty.
_OPENING = {
    "synchronous": 0,
    "auto_vacuum": DEFAULT_SETTINGS["sqlite_auto_vacuum"],
    "journal_mode": "wal",
}

# What diskcache writes to its settings when it opens a database, and how to tell that it need not.
_SAME_SETTING = {
    "INSERT OR REPLACE INTO Settings VALUES (?, ?)": (
        "SELECT 1 FROM Settings WHERE key = ? AND value IS ?"
    ),
    _UPDATE_SETTING: ("SELECT 1 FROM Settings WHERE value IS ? AND key = ?"),
    "INSERT OR IGNORE INTO Settings VALUES (?, ?)": (
        "SELECT 1 FROM Settings WHERE key = ? AND ? IS NOT NULL"
    ),
}

Execute = Callable[..., sqlite3.Cursor]
UnlinkLater = Callable[[str | None], None]
"""Notes a file that goes when the transaction has committed."""


class CacheFile(diskcache.Cache):  # type: ignore[misc]  # no types
    """One database file and the value files of its rows.

    Threads share the object. After construction its attributes change only by `volume` (`size`, a
    number that nobody reads later), `_local`, which is each thread's own, and `sweep_at_s`, where
    the worst of a race is a second look.
    """

    def __init__(self, directory: str, connection: Connection, settings: dict[str, Any]) -> None:
        """Bring the database up to date over `connection`; the caller holds the alias's lock."""
        self._opening: Connection | None = connection
        for pragma, wanted in _OPENING.items():
            # Where it is so already, setting it would need the write lock, and room.
            if connection.execute(f"PRAGMA {pragma}").fetchall() != [(wanted,)]:
                connection.execute(f"PRAGMA {pragma} = {wanted}").fetchall()
        super().__init__(directory, disk=ValueFiles, **settings)
        self._opening = None
        self._local = threading.local()
        self.database_identity: Identity = (0, 0)
        self.sweep_at_s = 0.0
        note = EVICTION_POLICY[self.eviction_policy]["get"]
        self.access_update: str | None = note
        """What a hit writes, under policies that go by use; `{now}` stands for the time."""

    # -- what diskcache's own methods work with ----------------------------------------------

    def use(self, connection: Connection, method: Callable[..., Any], *args: Any) -> Any:
        """Return `method(*args)`, which may be or call diskcache's, run over this connection.

        What was in use before is put back: an operation in a signal handler has its own.
        """
        local = self._local
        outer = getattr(local, "connection", None)
        local.connection = connection
        try:
            return method(*args)
        finally:
            local.connection = outer

    @property
    def _con(self) -> Connection:
        connection: Connection = self._opening or self._local.connection
        return connection

    @property
    def _sql_retry(self) -> Execute:
        if self._opening is not None:
            return self._execute_if_needed
        execute: Execute = self._con.execute  # SQLite waits by itself, and not for ever
        return execute

    def _execute_if_needed(self, sql: str, arguments: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute it, unless it writes a setting that is there already.

        Even that would need the write lock, and room: a new process could not so much as read
        while another one is stopped in a write, or the disk is full.
        """
        execute: Execute = self._con.execute
        if (same := _SAME_SETTING.get(sql)) is not None:
            found = execute(same, arguments)
            if found.fetchall():
                return found
        return execute(sql, arguments)

    def reset(self, key: str, value: Any = ENOVAL, update: bool = True) -> Any:  # noqa: FBT001, FBT002 (diskcache's)
        """Read or write a setting. Pragmas are noted only: each connection has them from its `DatabaseSpec`.

        diskcache would set them here, and for up to a minute again and again while the database is
        locked, with all processes waiting behind this one.
        """
        if not key.startswith("sqlite_"):
            return super().reset(key, value, update)
        if update:
            self._execute_if_needed(_UPDATE_SETTING, (value, key))
        setattr(self, key, value)
        return value

    def close(self) -> None:
        """Do nothing: connections belong to their handles."""

    @contextlib.contextmanager
    def _transact(
        self, retry: Any = None, filename: Any = None
    ) -> Iterator[tuple[Execute, UnlinkLater]]:
        del retry, filename  # diskcache's way of waiting; ours is SQLite's own
        connection = self._con
        gone: list[str | None] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection.execute, gone.append
            connection.execute("COMMIT")
        except BaseException:
            connection.roll_back()
            raise
        self._unlink(gone)

    def volume(self) -> int:
        """Return the bytes in use, as `_make_room` has just measured them for `_cull`."""
        connection = self._con
        if connection.volume is None:
            connection.volume = self._bytes_in_use()
        return connection.volume

    def _bytes_in_use(self) -> int:
        """Return the bytes in use: pages with content, and value files.

        Unlike diskcache's volume, this leaves out free pages: within the transaction that culls
        they are still in the file, and culling until they go would empty the cache.
        """
        execute = self._con.execute
        (pages,) = execute("PRAGMA page_count").fetchone()
        volume: int = self._page_size * pages + self._sum(execute, _SIZE)
        if volume >= self.size_limit:
            (free,) = execute("PRAGMA freelist_count").fetchone()
            volume -= self._page_size * free
        return volume

    @staticmethod
    def _sum(execute: Execute, sql: str) -> int:
        row = execute(sql).fetchone()
        if row is None or type(row[0]) is not int:
            raise DatabaseDamaged("its Settings table lacks a sum")
        return row[0]

    # -- transactions ------------------------------------------------------------------------

    def _run(self, connection: Connection, body: Callable[..., Any], *args: Any) -> Any:
        """Run `body(execute, now, drop, *args)` in one write transaction; return its result."""
        return self.use(connection, self._run_here, connection, body, *args)

    def _run_here(self, connection: Connection, body: Callable[..., Any], *args: Any) -> Any:
        execute = connection.execute
        gone: list[str | None] = []
        try:
            execute("BEGIN IMMEDIATE")
            result = body(execute, clock.wall_s(), gone.append, *args)
            execute("COMMIT")
        except BaseException:
            connection.roll_back()
            raise
        if gone:
            self._unlink(gone)
        return result

    def _run_with_file(
        self, connection: Connection, columns: Columns, body: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a transaction that may store `columns`; without success their file goes again."""
        try:
            stored = self._run(connection, body, columns, *args)
        except sqlite3.Error:  # so it did not commit; other exceptions may come after it did
            self._unlink([columns[2]])
            raise
        if not stored:
            self._unlink([columns[2]])
        return stored

    def _unlink(self, names: Sequence[str | None]) -> None:
        for name in names:
            if name is not None:
                self._disk.remove(name)

    def _to_columns(self, payload: Payload) -> Columns:
        if type(payload) is not int and len(payload) > self.size_limit:  # type: ignore[arg-type]
            raise StoreFull(
                f"{self._directory}: a value of {len(payload)} bytes is larger than "  # type: ignore[arg-type]
                f"what this shard may hold ({self.size_limit} bytes: size_limit divided by "
                "shards); nothing was stored"
            )
        columns: Columns = self._disk.to_columns(payload)
        return columns

    def _make_room(self, now: float, execute: Execute, drop: UnlinkLater) -> None:
        """Cull as diskcache does, and go on until the shard is below its limit.

        Never all rows at once: the newest is the one that room is made for.
        """
        connection = self._con
        evicts = EVICTION_POLICY[self.eviction_policy]["cull"] is not None
        limit: int = self.cull_limit
        while True:
            volume = self._bytes_in_use()
            over = evicts and volume >= self.size_limit
            if over:
                rows = self._sum(execute, _COUNT)
                share = (volume - self.size_limit) * rows // volume + 1
                limit = min(max(self.cull_limit, share), _CULL_AT_MOST, rows - 1)
            connection.volume = volume
            if limit > 0:
                self._cull(now, execute, drop, limit)
            if limit <= 0 or not over:
                return

    def sweep(self, connection: Connection) -> int:
        """Remove old value files that no row names; return how many."""
        old = self._disk.old_files(ORPHAN_AGE_S)
        if not old:
            return 0
        # After the listing: a file that is old and has no row by now will not get one.
        rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        orphans = set(old).difference(name for (name,) in rows.fetchall())
        self._unlink(list(orphans))
        return len(orphans)
