"""The operations on the entries of one shard: each function is one atomic step.

Every write is one transaction that begins with BEGIN IMMEDIATE: it waits for the write lock first,
so what it reads is still true when it commits. Every read is one SELECT, which sees one committed
state. Rows past their deadline count as absent. So do leases and entries past their soft
deadline, except in `SELECT_VALUE`, `compare_and_move` and `discard`. Those rows have modes of their
own, so that checking a plain row costs only the comparison of this number.

`key` is always a final key. `store.DiskStore` passes these functions to `ShardedDatabase.run`, which
supplies the shard and the connection.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable
from cacheapp.backends.disk.shard import Shard, Transaction
from cacheapp.backends.disk.value_files import (
    MODE_LEASE,
    MODE_SOFT,
    Columns,
    fits_64_bits,
    payload_from_column,
)
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.sqlite_connections import Connection
from cacheapp.errors import StoreFull

_ALIVE = " WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
# NULL for a visible row, else the head that `lease_format.is_visible` must check.
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


def is_visible_head(head: bytes | None, now_s: float) -> bool:
    """Return True if a row is visible, by the head that these statements return for it."""
    return head is None or lease_format.is_visible(head, now_s)


# -- storing ---------------------------------------------------------------------------------


def put(
    shard: Shard,
    connection: Connection,
    entries: Sequence[tuple[str, Payload]],
    ttl: float | None,
    tag: str | None,
) -> None:
    """Store all entries in one transaction."""
    rows: list[tuple[str, Columns]] = []
    try:
        for key, payload in entries:
            rows.append((key, shard.to_columns(payload)))
        shard.write(connection, _put, rows, ttl, tag)
    except (sqlite3.Error, OSError, StoreFull) as exc:
        if not is_interruption(exc):  # which may come after the commit
            shard.unlink([columns[2] for _, columns in rows])
        raise


def _put(
    tx: Transaction, rows: Sequence[tuple[str, Columns]], ttl: float | None, tag: str | None
) -> None:
    deadline = tx.deadline_s(ttl)
    for key, columns in rows:
        found = tx.execute(SELECT_FILE, (key,)).fetchone()
        write_row(tx, key, found, columns, deadline, tag)
    tx.shard.make_room(tx)


def add(
    shard: Shard,
    connection: Connection,
    key: str,
    payload: Payload,
    ttl: float | None,
    tag: str | None,
) -> bool:
    """Store the payload if no entry is visible; return True if this call stored it."""
    # An `add` that finds an entry usually returns here, without taking the write lock.
    now_s = clock.wall_s()
    rows = connection.execute(SELECT_HEAD, (key, now_s)).fetchall()
    if rows and is_visible_head(rows[0][0], now_s):
        return False
    columns = shard.to_columns(payload)
    return shard.write_with_file(connection, columns, _add, key, ttl, tag)


def _add(tx: Transaction, columns: Columns, key: str, ttl: float | None, tag: str | None) -> bool:
    found = tx.execute(_SELECT_STATE, (key,)).fetchone()
    if found is not None and _is_visible_row(found, tx.now_s):
        return False
    write_row(tx, key, found, columns, tx.deadline_s(ttl), tag)
    tx.shard.make_room(tx)
    return True


def write_row(
    tx: Transaction,
    key: str,
    found: Sequence[Any] | None,
    columns: Columns,
    deadline: float | None,
    tag: str | None,
) -> None:
    """Write the columns to the row that was found, or to a new one."""
    if found is not None:
        tx.unlink_later(found[1])
        tx.execute(_UPDATE, (tx.now_s, deadline, tx.now_s, tag, *columns, found[0]))
    else:
        tx.execute(_INSERT, (key, tx.now_s, deadline, tx.now_s, tag, *columns))


# -- counting, comparing, removing -----------------------------------------------------------


def incr(shard: Shard, connection: Connection, key: str, delta: int) -> int | None:
    """Add to an integer; return `None` if there is no entry; raise `NotCountable`."""
    return shard.write(connection, _incr, key, delta)


def _incr(tx: Transaction, key: str, delta: int) -> int | None:
    found = tx.execute(_SELECT_NUMBER, (key, tx.now_s)).fetchone()
    if found is None:
        return None
    rowid, value = found
    if type(value) is not int or not fits_64_bits(value + delta):
        _rowid, filename, _size, value, _deadline, _tag, mode = tx.execute(
            SELECT_ROW, (key, tx.now_s)
        ).fetchone()
        if mode >= MODE_LEASE and not lease_format.is_visible(value, tx.now_s):
            return None
        raise NotCountable(None if filename is not None else payload_from_column(value))
    tx.execute(_UPDATE_NUMBER, (value + delta, tx.now_s, rowid))
    return int(value + delta)


def compare_and_move(
    shard: Shard,
    connection: Connection,
    source: str,
    target: str,
    expected: Payload,
    payload: Payload,
) -> bool:
    """Store the payload at `target` and remove `source`, if `source` holds `expected`.

    The entry keeps its deadline and its tag. `source` and `target` may be the same key.
    """
    columns = shard.to_columns(payload)
    return shard.write_with_file(connection, columns, _compare_and_move, source, target, expected)


def _compare_and_move(
    tx: Transaction, columns: Columns, source: str, target: str, expected: Payload
) -> bool:
    row = tx.execute(SELECT_ROW, (source, tx.now_s)).fetchone()
    if row is None or not holds(tx.shard, row, expected):
        return False
    rowid, filename, _size, _value, deadline, tag, _mode = row
    found: Sequence[Any] | None = row
    if source != target:
        found = tx.execute(SELECT_FILE, (target,)).fetchone()
        tx.unlink_later(filename)
        tx.execute(_DELETE, (rowid,))
    write_row(tx, target, found, columns, deadline, tag)
    tx.shard.make_room(tx)
    return True


def discard(shard: Shard, connection: Connection, key: str, expected: Payload) -> bool:
    """Remove the entry if it holds `expected`."""
    return shard.write(connection, _discard, key, expected)


def _discard(tx: Transaction, key: str, expected: Payload) -> bool:
    row = tx.execute(SELECT_ROW, (key, tx.now_s)).fetchone()
    if row is None or not holds(tx.shard, row, expected):
        return False
    tx.unlink_later(row[1])
    tx.execute(_DELETE, (row[0],))
    return True


def holds(shard: Shard, row: Sequence[Any], expected: Payload) -> bool:
    """Return True if a row of `SELECT_ROW` holds exactly `expected`; `1` differs from `b"1"`."""
    _rowid, filename, size, value, *_, mode = row
    if mode == MODE_SOFT:  # each soft head is unique
        return (
            type(expected) is bytes
            and lease_format.has_soft_deadline(expected)
            and value[: lease_format.SOFT_HEAD_BYTES] == expected[: lease_format.SOFT_HEAD_BYTES]
        )
    found = (
        payload_from_column(value) if filename is None else shard.disk.read(filename, size, None)
    )
    return type(found) is type(expected) and bool(found == expected)


def delete_keys(shard: Shard, connection: Connection, keys: Sequence[str]) -> int:
    """Remove the entries in one transaction; return how many were visible."""
    return shard.write(connection, _delete_keys, keys)


def _delete_keys(tx: Transaction, keys: Sequence[str]) -> int:
    count = 0
    for key in keys:
        found = tx.execute(_SELECT_STATE, (key,)).fetchone()
        if found is not None:
            tx.unlink_later(found[1])
            tx.execute(_DELETE, (found[0],))
            count += _is_visible_row(found, tx.now_s)
    return count


def clear(shard: Shard, connection: Connection) -> None:
    """Remove all rows, by diskcache's method."""
    shard.with_connection(connection, shard.clear)


def evict(shard: Shard, connection: Connection, tag: str) -> int:
    """Remove the rows with this tag, by diskcache's method; return how many."""
    count: int = shard.with_connection(connection, shard.evict, tag)
    return count


def _is_visible_row(row: Sequence[Any], now_s: float) -> bool:
    """Return True if a row of `_SELECT_STATE` is a visible entry."""
    _rowid, _filename, deadline, head = row
    return (deadline is None or deadline > now_s) and is_visible_head(head, now_s)


# -- reading ---------------------------------------------------------------------------------


def keys_after(_shard: Shard, connection: Connection, last: str, limit: int) -> list[Any]:
    """Return up to `limit` rows of `SELECT_KEYS` with keys that sort after `last`."""
    return connection.execute(SELECT_KEYS, (last, clock.wall_s(), limit)).fetchall()


def load(
    shard: Shard, connection: Connection, key: str, row: Sequence[Any] | None
) -> Payload | None:
    """Return the payload of a row with a value file; read the row again if the file is missing.

    The value file of a replaced row is unlinked at once, so a reader may find it missing and must
    read the row again. After three attempts the row is read under the write lock, where it cannot
    be replaced. A file that is missing or has the wrong size although its row is current is damage:
    that row is removed.
    """
    for _ in range(3):
        if row is None:
            return None
        value, filename, size, rowid = row
        if filename is None:
            return payload_from_column(value)
        content: bytes | None = shard.disk.read(filename, size, value)
        if content is not None:
            return content
        again = connection.execute(SELECT_VALUE, (key, clock.wall_s())).fetchone()
        if again is not None and again[3] == rowid and again[1] == filename:
            break
        row = again
    return shard.write(connection, _load, key)


def _load(tx: Transaction, key: str) -> Payload | None:
    row = tx.execute(SELECT_VALUE, (key, tx.now_s)).fetchone()
    if row is None:
        return None
    value, filename, size, rowid = row
    if filename is None:
        return payload_from_column(value)
    content: bytes | None = tx.shard.disk.read(filename, size, value)
    if content is None:
        tx.unlink_later(filename)
        tx.execute(_DELETE, (rowid,))
    return content


def record_access(shard: Shard, connection: Connection, key: str) -> None:
    """Record a hit, for the eviction policies that depend on use."""
    shard.write(connection, _record_access, key)


def _record_access(tx: Transaction, key: str) -> None:
    update = tx.shard.access_update
    assert update is not None  # noqa: S101 (for the type checker)
    tx.execute(f"UPDATE Cache SET {update.format(now=tx.now_s)}{_ALIVE}", (key, tx.now_s))
