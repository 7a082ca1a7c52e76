"""What a shard does about leases and soft deadlines: each method is one atomic step.

Invariant: a lease is put only where no entry is alive, or over a lease whose holder is dead; `fill`
writes only over the very payload that it expects. BEGIN IMMEDIATE holds it, as for all writes.

Where room is short, leases are among the last to be culled: each renewal makes them the newest, and
they count as used more often than any entry. One that is culled nevertheless is void, as after a
delete: somebody else may compute, and the first computation is not stored.
"""

from collections.abc import Callable, Sequence
from typing import Any

from diskcache.core import MODE_BINARY

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.entries import SELECT_FILE, SELECT_ROW, SELECT_VALUE, Entries
from cacheapp.backends.disk.shard import Execute, UnlinkLater
from cacheapp.backends.disk.value_files import MODE_LEASE, Columns
from cacheapp.backends.local.sqlite_connections import Connection

_USES = 2**62  # more than any entry's
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
"""Tells whether a holder is alive."""


class Shard(Entries):
    """One database as the store uses it."""

    # -- leases ------------------------------------------------------------------------------

    def lease(
        self, connection: Connection, key: str, lease: bytes, ttl: float, alive: IsHolderAlive
    ) -> Payload | None:
        """Put the lease where nothing is, or over a dead holder's; else return what is there."""
        while True:
            # Most calls find a value or a living holder, and end here without the write lock.
            row = connection.execute(SELECT_VALUE, (key, clock.wall_s())).fetchone()
            if row is not None and not _is_orphan(row[0], alive):
                found: Payload | None = self.load(connection, key, row)
                if found is not None:
                    return found
            if self._run(connection, self._lease, key, lease, ttl, alive):
                return None
            # Somebody was faster: the next look tells with what.

    @staticmethod
    def _lease(
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        key: str,
        lease: bytes,
        ttl: float,
        alive: IsHolderAlive,
    ) -> bool:
        row = execute(SELECT_VALUE, (key, now)).fetchone()
        if row is not None and not _is_orphan(row[0], alive):
            return False
        _put_lease(
            execute,
            now,
            unlink_later,
            key,
            execute(SELECT_FILE, (key,)).fetchone(),
            lease,
            now + ttl,
        )
        return True

    def fill(
        self,
        connection: Connection,
        key: str,
        expected: Payload,
        payload: Payload,
        ttl: float | None,
    ) -> bool:
        """Store the payload with a deadline of its own if `expected` is what is there."""
        columns = self._to_columns(payload)
        return bool(self._run_with_file(connection, columns, self._fill, key, expected, ttl))

    def _fill(
        self,
        execute: Execute,
        now: float,
        unlink_later: UnlinkLater,
        columns: Columns,
        key: str,
        expected: Payload,
        ttl: float | None,
    ) -> bool:
        row = execute(SELECT_ROW, (key, now)).fetchone()
        if row is None or not self._holds(row, expected):
            return False
        deadline = None if ttl is None else now + ttl
        if columns[1] == MODE_LEASE:
            _put_lease(execute, now, unlink_later, key, row, columns[3], deadline)
        else:
            self._write(execute, now, unlink_later, key, row, columns, deadline, None)
            self._make_room(now, execute, unlink_later)
        return True

    # -- deadlines ---------------------------------------------------------------------------

    def set_deadline(self, connection: Connection, key: str, ttl: float | None) -> bool:
        """Replace the deadline of an entry; it has no soft one then."""
        return bool(self._run(connection, self._set_deadline, key, ttl))

    def _set_deadline(
        self, execute: Execute, now: float, _drop: UnlinkLater, key: str, ttl: float | None
    ) -> bool:
        deadline = None if ttl is None else now + ttl
        return execute(_TOUCH, (deadline, key, now)).rowcount > 0 or self._unwrap(
            execute, now, key, deadline
        )

    def persist(self, connection: Connection, key: str) -> bool:
        """Take the deadline away, a soft one too."""
        return bool(self._run(connection, self._persist, key))

    def _persist(self, execute: Execute, now: float, _drop: UnlinkLater, key: str) -> bool:
        return execute(_PERSIST, (key, now)).rowcount > 0 or self._unwrap(execute, now, key, None)

    def _unwrap(self, execute: Execute, now: float, key: str, deadline: float | None) -> bool:
        """Make a visible entry with a soft deadline a plain one; return whether there was one."""
        row = execute(SELECT_ROW, (key, now)).fetchone()
        if row is None or row[-1] < MODE_LEASE or not lease_format.is_visible(row[3], now):
            return False
        rowid, filename, _size, value, *_ = row
        if filename is None:
            _size, mode, _filename, inner = self._disk.to_columns(lease_format.unwrap(value)[0])
        else:
            mode, inner = MODE_BINARY, None  # its file holds what is within
        execute(_UNWRAP, (deadline, mode, inner, rowid))
        return True


def _is_orphan(value: Any, alive: IsHolderAlive) -> bool:
    return lease_format.is_lease(value) and not alive(lease_format.holder_of(value))


def _put_lease(
    execute: Execute,
    now: float,
    unlink_later: UnlinkLater,
    key: str,
    found: Sequence[Any] | None,
    lease: bytes,
    deadline: float | None,
) -> None:
    if found is None:
        execute(_INSERT, (key, now, deadline, now, lease))
    else:
        unlink_later(found[1])
        execute(_UPDATE, (now, deadline, now, lease, found[0]))
