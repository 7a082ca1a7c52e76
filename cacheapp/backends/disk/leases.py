"""The operations on leases and deadlines of one shard: each function is one atomic step.

Invariant: a lease is stored only where no entry is alive, or over a lease whose holder is dead;
`fill` replaces only the payload that it expects. BEGIN IMMEDIATE ensures this, as for all writes.

When space is short, leases are among the last rows to be culled: each renewal makes them the
newest, and they count as used more often than any entry. A culled lease is void, as after a delete:
another caller may compute, and the first computation is not stored.
"""

from collections.abc import Callable, Sequence
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.entries import (
    SELECT_FILE,
    SELECT_ROW,
    SELECT_VALUE,
    holds,
    load,
    write_row,
)
from cacheapp.backends.disk.library import core
from cacheapp.backends.disk.shard import Shard, Transaction
from cacheapp.backends.disk.value_files import MODE_LEASE, Columns
from cacheapp.backends.local.sqlite_connections import Connection

_USES = 2**62  # more than any entry has
_INSERT = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size,"
    f" mode, filename, value) VALUES (?, 1, ?, ?, ?, {_USES}, NULL, 0, {MODE_LEASE}, NULL, ?)"
)
_UPDATE = (
    f"UPDATE Cache SET store_time = ?, expire_time = ?, access_time = ?, access_count = {_USES},"
    f" tag = NULL, size = 0, mode = {MODE_LEASE}, filename = NULL, value = ? WHERE rowid = ?"
)
_PLAIN = (
    f" WHERE key = ? AND raw = 1 AND mode < {MODE_LEASE}"
    " AND (expire_time IS NULL OR expire_time > ?)"
)
_TOUCH = "UPDATE Cache SET expire_time = ?" + _PLAIN
_PERSIST = "UPDATE Cache SET expire_time = NULL" + _PLAIN + " AND expire_time IS NOT NULL"
_UNWRAP = "UPDATE Cache SET expire_time = ?, mode = ?, value = ? WHERE rowid = ?"

IsHolderAlive = Callable[[bytes], bool]


def lease(
    shard: Shard,
    connection: Connection,
    key: str,
    new: bytes,
    ttl: float,
    is_alive: IsHolderAlive,
) -> Payload | None:
    """Store the lease `new` if nothing or a dead holder's lease is there; else return what is there."""
    while True:
        # Most calls find a value or a living holder, and return here without the write lock.
        row = connection.execute(SELECT_VALUE, (key, clock.wall_s())).fetchone()
        if row is not None and not _is_orphaned(row[0], is_alive):
            found = load(shard, connection, key, row)
            if found is not None:
                return found
        if shard.write(connection, _lease, key, new, ttl, is_alive):
            return None
        # Another caller was faster: read what it stored.


def _lease(tx: Transaction, key: str, new: bytes, ttl: float, is_alive: IsHolderAlive) -> bool:
    row = tx.execute(SELECT_VALUE, (key, tx.now_s)).fetchone()
    if row is not None and not _is_orphaned(row[0], is_alive):
        return False
    found = tx.execute(SELECT_FILE, (key,)).fetchone()
    _write_lease(tx, key, found, new, tx.now_s + ttl)
    return True


def fill(
    shard: Shard,
    connection: Connection,
    key: str,
    expected: Payload,
    payload: Payload,
    ttl: float | None,
) -> bool:
    """Store the payload with its own deadline if the key holds `expected`."""
    columns = shard.to_columns(payload)
    return shard.write_with_file(connection, columns, _fill, key, expected, ttl)


def _fill(
    tx: Transaction, columns: Columns, key: str, expected: Payload, ttl: float | None
) -> bool:
    row = tx.execute(SELECT_ROW, (key, tx.now_s)).fetchone()
    if row is None or not holds(tx.shard, row, expected):
        return False
    deadline = tx.deadline_s(ttl)
    if columns[1] == MODE_LEASE:
        _write_lease(tx, key, row, columns[3], deadline)
    else:
        write_row(tx, key, row, columns, deadline, None)
        tx.shard.make_room(tx)
    return True


def _is_orphaned(value: Any, is_alive: IsHolderAlive) -> bool:
    return lease_format.is_lease(value) and not is_alive(lease_format.holder_of(value))


def _write_lease(
    tx: Transaction,
    key: str,
    found: Sequence[Any] | None,
    new: bytes,
    deadline: float | None,
) -> None:
    if found is None:
        tx.execute(_INSERT, (key, tx.now_s, deadline, tx.now_s, new))
    else:
        tx.unlink_later(found[1])
        tx.execute(_UPDATE, (tx.now_s, deadline, tx.now_s, new, found[0]))


# -- deadlines -------------------------------------------------------------------------------


def set_deadline(shard: Shard, connection: Connection, key: str, ttl: float | None) -> bool:
    """Replace the deadline of an entry; it loses its soft deadline."""
    return shard.write(connection, _set_deadline, key, ttl)


def _set_deadline(tx: Transaction, key: str, ttl: float | None) -> bool:
    deadline = tx.deadline_s(ttl)
    return tx.execute(_TOUCH, (deadline, key, tx.now_s)).rowcount > 0 or _unwrap(tx, key, deadline)


def persist(shard: Shard, connection: Connection, key: str) -> bool:
    """Remove the deadline of an entry, including a soft one."""
    return shard.write(connection, _persist, key)


def _persist(tx: Transaction, key: str) -> bool:
    return tx.execute(_PERSIST, (key, tx.now_s)).rowcount > 0 or _unwrap(tx, key, None)


def _unwrap(tx: Transaction, key: str, deadline: float | None) -> bool:
    """Convert a visible entry with a soft deadline to a plain one; return True if there was one."""
    row = tx.execute(SELECT_ROW, (key, tx.now_s)).fetchone()
    if row is None or row[-1] < MODE_LEASE or not lease_format.is_visible(row[3], tx.now_s):
        return False
    rowid, filename, _size, value, *_ = row
    if filename is None:
        _size, mode, _filename, inner = tx.shard.disk.to_columns(lease_format.unwrap(value)[0])
    else:
        mode, inner = core.MODE_BINARY, None  # its file holds the plain payload
    tx.execute(_UNWRAP, (deadline, mode, inner, rowid))
    return True
