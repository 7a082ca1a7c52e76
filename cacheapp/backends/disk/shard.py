"""One shard: a `diskcache.Cache` with our own connections, transactions and value files.

diskcache provides the schema with its triggers, the settings, culling and tags; docs/why.md lists
which of its private names are used. The operations on a shard's rows are in `entries` and `leases`.
"""

import contextlib
import os
import sqlite3
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.library import core, diskcache
from cacheapp.backends.disk.value_files import ORPHAN_AGE_S, Columns, ValueFiles
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.paths import is_directory
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
# As `_cull` selects them.
_COUNT_EXPIRED = (
    "SELECT count(*) FROM (SELECT 1 FROM Cache"
    " WHERE expire_time IS NOT NULL AND expire_time < ? LIMIT ?)"
)

_UPDATE_SETTING = "UPDATE Settings SET value = ? WHERE key = ?"
# A new database is created without syncing each step to the disk, which can take seconds on a busy
# disk. If the machine crashes then, the database is found damaged; it was empty.
_OPENING = {
    "synchronous": 0,
    "auto_vacuum": core.DEFAULT_SETTINGS["sqlite_auto_vacuum"],
    "journal_mode": "wal",
}

# What diskcache writes to its settings when it opens a database, and the query that finds a row if
# the write is unnecessary.
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
CountCulled = Callable[[int, int], None]
"""Called with how many entries were evicted, and how many had expired."""
P = ParamSpec("P")
T = TypeVar("T")


def _with_paths(function: Any, **functions: Callable[..., Any]) -> Callable[..., None]:
    """Return a function of diskcache with other functions in its `os.path`."""
    names = {**vars(core), "op": types.SimpleNamespace(**{**vars(os.path), **functions})}
    copy = types.FunctionType(function.__code__, names, argdefs=function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# `os.path.isdir` takes a `TimeoutError` of a signal handler for a missing directory.
_initialise = _with_paths(diskcache.Cache.__init__, isdir=is_directory)


class Transaction:
    """An open write transaction of one shard.

    It began with BEGIN IMMEDIATE: what it reads is still true when it commits.
    """

    __slots__ = ("culled", "execute", "now_s", "shard", "unlinked")

    def __init__(self, shard: "Shard", execute: Execute) -> None:
        self.shard = shard
        self.execute = execute
        self.now_s = clock.wall_s()
        self.unlinked: list[str | None] = []
        self.culled: tuple[int, int] | None = None
        """How many entries `make_room` evicted, and how many had expired; counted after the commit."""

    def deadline_s(self, ttl: float | None) -> float | None:
        """Return the deadline of what is stored now with this TTL."""
        return None if ttl is None else self.now_s + ttl

    def unlink_later(self, filename: str | None) -> None:
        """Unlink this value file after the commit."""
        self.unlinked.append(filename)


def check_size(length: int, largest: int, where: object) -> None:
    """Raise `StoreFull` if no value may have so many bytes."""
    if length > largest:
        raise StoreFull(
            f"{where}: the value has {length} bytes; the largest has {largest}, "
            "OPTIONS['size_limit'] divided by OPTIONS['shards']; raise the one or lower the other; "
            "nothing was stored"
        )


class Shard(diskcache.Cache):  # type: ignore[misc]  # no types
    """One database file and the value files of its rows.

    Threads share the object. After construction its attributes change only in `volume` (`size`, a
    number that is not read later), `_local`, which each thread has its own of, and `sweep_at_s`,
    where a race costs at most a second sweep.
    """

    def __init__(
        self,
        directory: str,
        connection: Connection,
        settings: dict[str, Any],
        count_culled: CountCulled,
    ) -> None:
        """Bring the database up to date over `connection`; the caller holds the alias's lock."""
        self._opening: Connection | None = connection
        for pragma, wanted in _OPENING.items():
            # Setting a pragma that is already set would need the write lock, and disk space.
            if connection.execute(f"PRAGMA {pragma}").fetchall() != [(wanted,)]:
                connection.execute(f"PRAGMA {pragma} = {wanted}").fetchall()
        _initialise(self, directory, disk=ValueFiles, **settings)
        self._opening = None
        self._local = threading.local()
        self.database_identity: Identity = (0, 0)
        self.sweep_at_s = 0.0
        update = core.EVICTION_POLICY[self.eviction_policy]["get"]
        self.count_culled = count_culled
        self.access_update: str | None = update
        """What a hit writes, under policies that depend on use; `{now}` is replaced by the time."""

    # -- what diskcache's own methods use ----------------------------------------------------

    def with_connection(
        self, connection: Connection, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `method(*args)`; methods of diskcache that it calls use this connection.

        The block rolls back what an exception of a signal handler leaves open in `_transact`.
        """
        self._local.connection = connection
        with connection.sqlite:
            return method(*args, **kwargs)

    @property
    def _con(self) -> Connection:
        connection: Connection = self._opening or self._local.connection
        return connection

    @property
    def _sql_retry(self) -> Execute:
        if self._opening is not None:
            return self._execute_if_needed
        execute: Execute = self._con.execute  # SQLite waits for locks itself, with a limit
        return execute

    def _execute_if_needed(self, sql: str, arguments: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute a statement, unless it writes a setting that is already stored.

        Such a write would need the write lock and disk space: a new process could not even read
        while another process is stopped in a write, or the disk is full.
        """
        execute: Execute = self._con.execute
        if (same := _SAME_SETTING.get(sql)) is not None:
            found = execute(same, arguments)
            if found.fetchall():
                return found
        return execute(sql, arguments)

    @staticmethod
    def _resolve_read_only(_directory: str, _read_only: bool | None) -> bool:  # noqa: FBT001 (the fork's)
        """Open for writing, as diskcache does: SQLite says what it may not write.

        diskcache-community asks `os.path.isfile`, which takes a signal handler's error for "no".
        """
        return False

    def reset(self, key: str, value: Any = core.ENOVAL, update: bool = True) -> Any:  # noqa: FBT001, FBT002 (diskcache's)
        """Read or write a setting. Pragmas are only stored; each connection sets them itself.

        diskcache would set them here, and would retry for up to a minute while the database is
        locked, with all other processes waiting for this one.
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
    ) -> Iterator[tuple[Execute, Callable[[str | None], None]]]:
        del retry, filename  # diskcache's own retries; SQLite waits instead
        connection = self._con
        unlinked: list[str | None] = []
        with connection.sqlite:  # commits, or rolls back, in one step
            connection.execute("BEGIN IMMEDIATE")
            yield connection.execute, unlinked.append
        self.unlink(unlinked)

    def volume(self) -> int:
        """Return the bytes in use, as `make_room` has just measured them for `_cull`."""
        connection = self._con
        if connection.volume is None:
            connection.volume = self._bytes_in_use()
        return connection.volume

    def _bytes_in_use(self) -> int:
        """Return the bytes in use: pages with content, and value files.

        Unlike diskcache's volume, this excludes free pages. They remain in the file until the
        culling transaction has committed, so culling until they are gone would empty the cache.
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
            raise DatabaseDamaged("its Settings table has no valid sum")
        return row[0]

    # -- transactions ------------------------------------------------------------------------

    def write(
        self,
        connection: Connection,
        body: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `body(transaction, *args)` in one write transaction; return its result."""
        execute = connection.execute
        self._local.connection = connection  # for `make_room`, and what it calls of diskcache
        with connection.sqlite:  # commits, or rolls back, in one step
            execute("BEGIN IMMEDIATE")
            transaction = Transaction(self, execute)
            result = body(transaction, *args, **kwargs)
        if transaction.unlinked:
            self.unlink(transaction.unlinked)
            if transaction.culled is not None:
                self.count_culled(*transaction.culled)
        return result

    def write_with_file(
        self,
        connection: Connection,
        columns: Columns,
        body: Callable[Concatenate[Transaction, Columns, P], bool],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Run a transaction that may store `columns`; if it does not, remove their value file."""
        try:
            stored = self.write(connection, body, columns, *args, **kwargs)
        except sqlite3.Error as exc:
            if not is_interruption(exc):  # which may come after the commit
                self.unlink([columns[2]])
            raise
        if not stored:
            self.unlink([columns[2]])
        return stored

    def unlink(self, filenames: Sequence[str | None]) -> None:
        """Remove value files; `None` stands for a row without one."""
        for filename in filenames:
            if filename is not None:
                self.disk.remove(filename)

    def to_columns(self, payload: Payload) -> Columns:
        """Return the payload as columns of a row, and write its value file if it needs one."""
        if isinstance(payload, bytes):
            check_size(len(payload), self.size_limit, self._directory)
        columns: Columns = self.disk.to_columns(payload)
        return columns

    def make_room(self, transaction: Transaction) -> None:
        """Cull as diskcache does, and continue until the shard is below its limit.

        Never removes all rows: the newest is the one that room is made for.
        """
        connection = self._con
        evicts = core.EVICTION_POLICY[self.eviction_policy]["cull"] is not None
        limit: int = self.cull_limit
        while True:
            volume = self._bytes_in_use()
            over = evicts and volume >= self.size_limit
            if over:
                rows = self._sum(transaction.execute, _COUNT)
                share = (volume - self.size_limit) * rows // volume + 1
                limit = min(max(self.cull_limit, share), _CULL_AT_MOST, rows - 1)
            connection.volume = volume
            if limit > 0:
                self._cull_counted(transaction, limit, over=over)
            if limit <= 0 or not over:
                return

    def _cull_counted(self, transaction: Transaction, limit: int, *, over: bool) -> None:
        """Cull up to `limit` rows, the expired ones first; note how many of each kind there were."""
        expired = limit
        if over:  # else none is evicted
            due = transaction.execute(_COUNT_EXPIRED, (transaction.now_s, limit))
            (expired,) = due.fetchone()
        before = len(transaction.unlinked)
        self._cull(transaction.now_s, transaction.execute, transaction.unlink_later, limit)
        removed = len(transaction.unlinked) - before
        if removed:
            expired = min(expired, removed)
            evictions, expirations = transaction.culled or (0, 0)
            transaction.culled = (evictions + removed - expired, expirations + expired)

    def figures(self, connection: Connection) -> tuple[int, int]:
        """Return the rows and the bytes in use."""
        execute = connection.execute
        rows, bytes_of_files = self._sum(execute, _COUNT), self._sum(execute, _SIZE)
        (pages,) = execute("PRAGMA page_count").fetchone()
        (free,) = execute("PRAGMA freelist_count").fetchone()
        return rows, self._page_size * (pages - free) + bytes_of_files

    def sweep(self, connection: Connection) -> int:
        """Remove old value files that no row names; return how many."""
        old = self.disk.old_files(ORPHAN_AGE_S)
        if not old:
            return 0
        # Queried after the listing: an old file that has no row now will not get one.
        rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        orphans = set(old).difference(name for (name,) in rows.fetchall())
        self.unlink(list(orphans))
        return len(orphans)
