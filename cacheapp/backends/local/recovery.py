"""What is done about an operation on a shard that failed, so that it is worth another attempt."""

import contextlib
import sqlite3
import threading
import time

from cacheapp.backends.local.database_spec import DatabaseSpec
from cacheapp.backends.local.directory import DatabaseDirectory
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.backends.local.sqlite_connections import (
    Connection,
    ConnectionRegistry,
    ThreadConnections,
)
from cacheapp.backends.local.sqlite_errors import (
    is_busy,
    is_full,
    is_relocated,
    is_unopenable,
    suspects_damage,
)

_PAUSE_S = 0.01


class Mending:
    """The half of `ShardedDatabase` that sets a damaged database aside and waits for what passes."""

    def __init__(
        self, directory: DatabaseDirectory, shards: int, timeout_s: float, kind: DatabaseSpec
    ) -> None:
        self.registry = ConnectionRegistry(shards)
        self.directory = directory
        self._timeout_s = timeout_s
        self._kind = kind
        self._databases = [directory.database(number) for number in range(shards)]
        # Reentrant: a signal handler may use the cache while this thread opens a shard.
        self._opening = threading.RLock()

    def _mended(
        self,
        handle: ThreadConnections,
        number: int,
        con: Connection | None,
        error: Exception,
        *,
        hard: bool,
    ) -> bool:
        """Return whether the operation, which had no effect, is worth another attempt.

        `hard`: it has failed so before; a database that looks sound is then not believed.
        """
        if is_busy(error):  # at once, where SQLite fears a deadlock among those that wait
            time.sleep(_PAUSE_S)
            return True
        if is_full(error) and con is not None and not hard:
            # What the WAL holds goes into the database, mostly over pages that it has already:
            # with the room of the WAL, at least a delete or `clear` finds a way.
            with contextlib.suppress(sqlite3.Error):
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return True
        handle.drop(number)
        if suspects_damage(error):
            # What hinders the inspection would hinder the next attempt too, which then tells it.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._inspect(handle, number, con, error, hard=hard)
            return True
        if is_relocated(error):
            time.sleep(_PAUSE_S)  # whoever removes a directory is not done yet
            return True
        # Else, without a connection, the file may have gone while it was opened.
        return con is None or identity_of(self._databases[number]) != con.identity

    def _was_removed(self, number: int, error: Exception) -> bool:
        """Return whether the error is of a removal, which ends, and not of a missing permission."""
        return is_relocated(error) and (
            not is_unopenable(error) or identity_of(self._databases[number]) is None
        )

    def _inspect(
        self,
        handle: ThreadConnections,
        number: int,
        con: Connection | None,
        error: Exception,
        *,
        hard: bool,
    ) -> None:
        """Set the database aside if it is damaged, and is still the one that the error is about.

        Without a connection, which one that was is not known, and only what is found here counts.
        """
        with self._opening, self.directory.locked():
            if con is not None and identity_of(self._databases[number]) != con.identity:
                return  # another process was faster
            if (hard and con is not None) or not self._sound(handle, number):
                self.directory.set_aside(number, str(error))

    def _sound(self, handle: ThreadConnections, number: int) -> bool:
        probe: Connection | None = None
        try:
            probe = Connection(self._database_now(number), self._timeout_s, handle)
            for sql in self._kind.probes:
                probe.execute(sql).fetchall()
            return [*probe.execute("PRAGMA quick_check(1)").fetchall()] == [("ok",)]
        except sqlite3.Error as exc:
            if suspects_damage(exc):
                return False
            raise
        finally:
            handle.opening = None
            if probe is not None:
                probe.close()

    def _database_now(self, number: int) -> str:
        """Return a path at which there never is another database than the one of now."""
        return str(self.directory.current(number) / self.directory.database_name)
