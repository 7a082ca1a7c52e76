"""Periodic maintenance of a shard after writes: bound the WAL, remove orphaned value files."""

import logging
import os
import sqlite3

from cacheapp import clock
from cacheapp.backends.disk.shard import Shard
from cacheapp.backends.disk.value_files import ORPHAN_AGE_S
from cacheapp.backends.local.interruptions import suppress_failure
from cacheapp.backends.local.sqlite_connections import Connection

logger = logging.getLogger(__name__)


_SHORT_WAIT_MS = 20
_LONG_WAIT_MS = 500
_BACKOFF = 10  # after a wait in vain, pause this many times its length
_CHECK_EVERY_WRITES = 2  # a write that culls may log some 20 pages


class ShardMaintenance:
    """Maintains the shards of one store. It needs no locks besides the database's own."""

    def __init__(self, wal_bytes: int, timeout_s: float) -> None:
        self._wal_bytes = wal_bytes
        self._timeout_s = timeout_s

    def after_write(self, shard: Shard, con: Connection) -> None:
        """Bound the WAL and remove orphans; errors are ignored, because the write has succeeded."""
        con.writes += 1
        if con.writes >= _CHECK_EVERY_WRITES:
            con.writes = 0
            with suppress_failure(sqlite3.Error, OSError):
                self._bound_wal(shard, con)
        if con.checked_s >= shard.sweep_at_s:
            shard.sweep_at_s = con.checked_s + ORPHAN_AGE_S
            with suppress_failure(sqlite3.Error, OSError):
                self._sweep(shard, con)

    def _bound_wal(self, shard: Shard, con: Connection) -> None:
        """Truncate the WAL if readers have kept it from starting over.

        A checkpoint cannot complete while a reader is stopped in the middle of a SELECT, so the wait
        is short, and the pauses between waits limit it to a small part of the writers' time. If the
        WAL is far too large, the wait is longer: on a busy machine readers may only be waiting for
        the CPU.
        """
        size = os.stat(f"{shard.directory}/cache.db-wal").st_size
        if size <= self._wal_bytes:
            return
        waits_ms = (
            [_LONG_WAIT_MS, _SHORT_WAIT_MS] if size > 1.5 * self._wal_bytes else [_SHORT_WAIT_MS]
        )
        began_s = clock.monotonic_s()
        wait_ms = next((ms for ms in waits_ms if began_s >= con.next_checkpoint_s[ms]), None)
        if wait_ms is None:
            return
        con.execute(f"PRAGMA busy_timeout = {wait_ms}").fetchall()
        try:
            (busy, *_), *_ = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            con.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}").fetchall()
        if busy:  # returned at once if another process is checkpointing
            now_s = clock.monotonic_s()
            con.next_checkpoint_s[wait_ms] = now_s + _BACKOFF * (now_s - began_s)

    def _sweep(self, shard: Shard, con: Connection) -> None:
        """Remove orphans, unless a process has done so within `ORPHAN_AGE_S`."""
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
                "removed %d orphaned value files of killed writers from %s",
                count,
                shard.directory,
                extra={"event": "cache_orphans_removed"},
            )
