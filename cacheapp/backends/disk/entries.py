"""What the cache does with the entries of one shard: each method is one atomic step.

Every write is one transaction, begun with BEGIN IMMEDIATE: it waits for the write lock at its
begin, and what it reads after that is still so when it commits. Every read is one SELECT, which
sees one committed state. Rows whose deadline has passed count as absent; so do leases and entries
past their soft deadline, but for `SELECT_VALUE`, `compare_and_move` and `discard`. Those have a mode of their own, so
that of a plain row nothing more is looked at than this number.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable
from cacheapp.backends.disk.shard import CacheFile, Execute, UnlinkLater
from cacheapp.backends.disk.value_files import (
    MODE_LEASE,
    MODE_SOFT,
    Columns,
    fits_64_bits,
    payload_from_column,
)
from cacheapp.backends.local.sqlite_connections import Connection
from cacheapp.errors import StoreFull

_ALIVE = " WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
# NULL for what everybody may see, else what `forms.is_visible` must look at.
_HEAD = f"CASE WHEN mode >= {MODE_LEASE} THEN substr(value, 1, {lease_format.HEAD_BYTES}) END"

SELECT_VALUE = "SELECT value, filename, size, rowid FROM Cache" + _ALIVE
SELECT_HEAD = f"SELECT {_HEAD} FROM Cache" + _ALIVE
SELECT_DEADLINE = f"SELECT expire_time, {_HEAD} FROM Cache" + _ALIVE
SELECT_KEYS = (
    f"SELECT key, {_HEAD} FROM Cache WHERE key > ? AND raw = 1"
    " AND (expire_time IS NULL OR expire_time > ?) ORDER BY key LIMIT ?"
)

SELECT_FILE = "SELECT rowid, filename FROM Cache WHERE key = ? AND raw = 1"
_SELECT_STATE = f"SELECT rowid, filename, expire_time, {_HEAD} FROM Cache WHERE key = ? AND raw = 1"
SELECT_ROW = "SELECT rowid, filename, size, value, expire_time, tag, mode FROM Cache" + _ALIVE
_INSERT = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size,"
    " mode, filename, value) VALUES (?, 1, ?, ?, ?, 0, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE Cache SET store_time = ?, expire_time = ?, access_time = ?, access_count = 0, tag = ?,"
    " size = ?, mode = ?, filename = ?, value = ? WHERE rowid = ?"
)
_DELETE = "DELETE FROM Cache WHERE rowid = ?"
_UPDATE_NUMBER = "UPDATE Cache SET value = ?, store_time = ? WHERE rowid = ?"
_SELECT_NUMBER = "SELECT rowid, value FROM Cache" + _ALIVE


def visible(head: bytes | None, now: float) -> bool:
    """Return whether everybody may see a row, by what these statements give for its head."""
    return head is None or lease_format.is_visible(head, now)


class Entries(CacheFile):
    """The entries of one database; `key` is always a final key."""

    def put(
        self,
        connection: Connection,
        entries: Sequence[tuple[str, Payload]],
        ttl: float | None,
        tag: str | None,
    ) -> None:
        """Store all entries in one transaction."""
        rows: list[tuple[str, Columns]] = []
        try:
            for key, payload in entries:
                rows.append((key, self._to_columns(payload)))
            self._run(connection, self._put, rows, ttl, tag)
        except (sqlite3.Error, OSError, StoreFull):
            self._unlink([columns[2] for _, columns in rows])
            raise

    def _put(
        self,
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        rows: Sequence[tuple[str, Columns]],
        ttl: float | None,
        tag: str | None,
    ) -> None:
        deadline = None if ttl is None else now + ttl
        for key, columns in rows:
            found = execute(SELECT_FILE, (key,)).fetchone()
            self._write(execute, now, unlink_later, key, found, columns, deadline, tag)
        self._make_room(now, execute, unlink_later)

    def add(
        self,
        connection: Connection,
        key: str,
        payload: Payload,
        ttl: float | None,
        tag: str | None,
    ) -> bool:
        """Store the payload where no entry is alive; return whether this call did."""
        # Most calls of an `add` that somebody else won end here, without the write lock.
        now = clock.wall_s()
        rows = connection.execute(SELECT_HEAD, (key, now)).fetchall()
        if rows and visible(rows[0][0], now):
            return False
        columns = self._to_columns(payload)
        return bool(self._run_with_file(connection, columns, self._add, key, ttl, tag))

    def _add(
        self,
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        columns: Columns,
        key: str,
        ttl: float | None,
        tag: str | None,
    ) -> bool:
        found = execute(_SELECT_STATE, (key,)).fetchone()
        if found is not None and _is_there(found, now):
            return False
        deadline = None if ttl is None else now + ttl
        self._write(execute, now, unlink_later, key, found, columns, deadline, tag)
        self._make_room(now, execute, unlink_later)
        return True

    def drop_keys(self, connection: Connection, keys: Sequence[str]) -> int:
        """Remove the entries in one transaction; return how many were there."""
        count: int = self._run(connection, self._drop_keys, keys)
        return count

    @staticmethod
    def _drop_keys(
        execute: Execute, now: float, unlink_later: UnlinkLater, keys: Sequence[str]
    ) -> int:
        alive = 0
        for key in keys:
            found = execute(_SELECT_STATE, (key,)).fetchone()
            if found is not None:
                unlink_later(found[1])
                execute(_DELETE, (found[0],))
                alive += _is_there(found, now)
        return alive

    def incr(self, connection: Connection, key: str, delta: int) -> int | None:
        """Add to an integer; `None` where there is none; raise `NotCountable`."""
        total: int | None = self._run(connection, self._incr, key, delta)
        return total

    @staticmethod
    def _incr(execute: Execute, now: float, _drop: UnlinkLater, key: str, delta: int) -> int | None:
        found = execute(_SELECT_NUMBER, (key, now)).fetchone()
        if found is None:
            return None
        rowid, value = found
        if type(value) is not int or not fits_64_bits(value + delta):
            _rowid, filename, _size, value, _deadline, _tag, mode = execute(
                SELECT_ROW, (key, now)
            ).fetchone()
            if mode >= MODE_LEASE and not lease_format.is_visible(value, now):
                return None
            raise NotCountable(None if filename is not None else payload_from_column(value))
        execute(_UPDATE_NUMBER, (value + delta, now, rowid))
        return value + delta

    def compare_and_move(
        self,
        connection: Connection,
        source: str,
        target: str,
        expected: Payload,
        payload: Payload,
    ) -> bool:
        """Put the payload at `target` with the deadline and tag of `source`, which goes.

        Only if `expected` is at `source`. They may be one key.
        """
        columns = self._to_columns(payload)
        return bool(
            self._run_with_file(
                connection, columns, self._compare_and_move, source, target, expected
            )
        )

    def _compare_and_move(
        self,
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        columns: Columns,
        source: str,
        target: str,
        expected: Payload,
    ) -> bool:
        row = execute(SELECT_ROW, (source, now)).fetchone()
        if row is None or not self._holds(row, expected):
            return False
        rowid, filename, _size, _value, deadline, tag, _mode = row
        found: Sequence[Any] | None = row
        if source != target:
            found = execute(SELECT_FILE, (target,)).fetchone()
            unlink_later(filename)
            execute(_DELETE, (rowid,))
        self._write(execute, now, unlink_later, target, found, columns, deadline, tag)
        self._make_room(now, execute, unlink_later)
        return True

    def discard(self, connection: Connection, key: str, expected: Payload) -> bool:
        """Remove the entry if it holds `expected`."""
        return bool(self._run(connection, self._discard, key, expected))

    def _discard(
        self, execute: Execute, now: float, unlink_later: UnlinkLater, key: str, expected: Payload
    ) -> bool:
        row = execute(SELECT_ROW, (key, now)).fetchone()
        if row is None or not self._holds(row, expected):
            return False
        unlink_later(row[1])
        execute(_DELETE, (row[0],))
        return True

    def _holds(self, row: Sequence[Any], expected: Payload) -> bool:
        """Return whether the row holds exactly `expected`; `1` is not `b"1"`, nor `True`."""
        _rowid, filename, size, value, *_, mode = row
        if mode == MODE_SOFT:  # no two have one head
            return (
                type(expected) is bytes
                and lease_format.has_soft_deadline(expected)
                and (
                    value[: lease_format.SOFT_HEAD_BYTES]
                    == expected[: lease_format.SOFT_HEAD_BYTES]
                )
            )
        found = (
            payload_from_column(value)
            if filename is None
            else self._disk.load(filename, size, None)
        )
        return type(found) is type(expected) and found == expected

    # -- values in files ---------------------------------------------------------------------

    def load(self, connection: Connection, key: str, row: Sequence[Any] | None) -> Payload | None:
        """Return the payload of a row that names a file; follow it where the file is gone.

        The file of a row that was replaced is unlinked at once: so the row is read again. Should
        that go on, once more under the write lock, where no row can be replaced. A file that is
        missing (or not of its size) while its row stays is damage: that row goes, by compare.
        """
        for _ in range(3):
            if row is None:
                return None
            value, filename, size, rowid = row
            if filename is None:
                return payload_from_column(value)
            content: bytes | None = self._disk.load(filename, size, value)
            if content is not None:
                return content
            again = connection.execute(SELECT_VALUE, (key, clock.wall_s())).fetchone()
            if again is not None and again[3] == rowid and again[1] == filename:
                break
            row = again
        found: Payload | None = self._run(connection, self._load, key)
        return found

    def _load(
        self, execute: Execute, now: float, unlink_later: UnlinkLater, key: str
    ) -> Payload | None:
        row = execute(SELECT_VALUE, (key, now)).fetchone()
        if row is None:
            return None
        value, filename, size, rowid = row
        if filename is None:
            return payload_from_column(value)
        content: bytes | None = self._disk.load(filename, size, value)
        if content is None:
            unlink_later(filename)
            execute(_DELETE, (rowid,))
        return content

    def record_access(self, connection: Connection, key: str) -> None:
        """Write down that the entry was used, for the policies that go by that."""
        self._run(connection, self._record_access, key)

    def _record_access(self, execute: Execute, now: float, _drop: UnlinkLater, key: str) -> None:
        assert self.access_update is not None  # noqa: S101 (for the type checker)
        execute(f"UPDATE Cache SET {self.access_update.format(now=now)}{_ALIVE}", (key, now))

    # -- rows -------------------------------------------------------------------------------

    def _write(
        self,
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        key: str,
        found: Sequence[Any] | None,
        columns: Columns,
        deadline: float | None,
        tag: str | None,
    ) -> None:
        """Put the columns into the row that was found, or into a new one."""
        if found is not None:
            unlink_later(found[1])
            execute(_UPDATE, (now, deadline, now, tag, *columns, found[0]))
        else:
            execute(_INSERT, (key, now, deadline, now, tag, *columns))


def _is_there(row: Sequence[Any], now: float) -> bool:
    """Return whether a row of `_SELECT_STATE` is an entry that everybody sees."""
    _rowid, _filename, deadline, head = row
    return (deadline is None or deadline > now) and visible(head, now)
