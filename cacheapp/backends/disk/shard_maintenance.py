"""What a shard needs now and then, done after a write: a bounded WAL, no orphans."""

import contextlib
import logging
import os
import sqlite3

from cacheapp import clock
from cacheapp.backends.disk.leases import Shard
from cacheapp.backends.disk.value_files import ORPHAN_AGE_S
from cacheapp.backends.local.sqlite_connections import Connection

logger = logging.getLogger(__name__)


_BRIEF_MS = 20
_PATIENT_MS = 500
_REST = 10  # times what was waited in vain, before the next attempt
_LOOK_EVERY = 2  # writes: one may log some 20 pages where it culls


class ShardMaintenance:
    """Looks after the shards of one store. The database has the locks that this needs."""

    def __init__(self, wal_bytes: int, timeout_s: float) -> None:
        self._wal_bytes = wal_bytes
        self._timeout_s = timeout_s

    def after_write(self, shard: Shard, con: Connection) -> None:
        """Keep the WAL bounded and remove orphans; the write has succeeded whatever happens here."""
        con.writes += 1
        if con.writes >= _LOOK_EVERY:
            con.writes = 0
            with contextlib.suppress(sqlite3.Error, OSError):
                self._bound_wal(shard, con)
        if con.checked_s >= shard.sweep_at_s:
            shard.sweep_at_s = con.checked_s + ORPHAN_AGE_S
            with contextlib.suppress(sqlite3.Error, OSError):
                self._sweep(shard, con)

    def _bound_wal(self, shard: Shard, con: Connection) -> None:
        """Empty the WAL where others have kept it from starting over.

        Briefly: while a reader is stopped in the middle of its SELECT nothing can, and writers must
        not wait for it each time, but a small part of their time. Longer once the WAL is far too
        large: on a busy machine the others may only be waiting for their turn.
        """
        size = os.stat(f"{shard.directory}/cache.db-wal").st_size
        if size <= self._wal_bytes:
            return
        waits_ms = [_PATIENT_MS, _BRIEF_MS] if size > 1.5 * self._wal_bytes else [_BRIEF_MS]
        began_s = clock.monotonic_s()
        wait_ms = next((ms for ms in waits_ms if began_s >= con.next_checkpoint_s[ms]), None)
        if wait_ms is None:
            return
        con.execute(f"PRAGMA busy_timeout = {wait_ms}").fetchall()
        try:
            (busy, *_), *_ = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            con.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}").fetchall()
        if busy:  # at once, without waiting, where another process is at it
            now_s = clock.monotonic_s()
            con.next_checkpoint_s[wait_ms] = now_s + _REST * (now_s - began_s)

    def _sweep(self, shard: Shard, con: Connection) -> None:
        """Remove orphans, unless another process has within the last minutes."""
        stamp = f"{shard.directory}/swept"
        number = os.open(stamp, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(number)
            if found.st_size and con.checked_s - found.st_mtime < ORPHAN_AGE_S:
                return
            os.pwrite(number, b"swept\n", 0)
            os.utime(number)
        finally:
            os.close(number)
        if count := shard.sweep(con):
            logger.info(
                "removed %d value files that killed writers had left in %s",
                count,
                shard.directory,
                extra={"event": "cache_orphans_removed"},
            )
