"""Runs one operation on one shard with this thread's connection: opens, looks again, mends.

"No two truths": a connection counts only while the path of its database leads to the very file
that it has open. That is looked at before every write, and before a read if a request has ended in
this process since the last look, or a second has passed. A directory that was removed or replaced
is thus found by all processes within a request, and all meet in the one that is at the path.
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Callable
from typing import Any

from cacheapp import clock
from cacheapp.backends.local.database_spec import Database, DatabaseSpec
from cacheapp.backends.local.directory import DatabaseDirectory
from cacheapp.backends.local.recovery import Mending
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.backends.local.sqlite_connections import Connection, ThreadConnections
from cacheapp.backends.local.sqlite_errors import (
    DatabaseDamaged,
    is_busy,
    is_closed,
    is_full,
    suspects_damage,
    translate_error,
)
from cacheapp.errors import StoreUnavailable

_ATTEMPTS = 8
_LOOK_AGAIN_S = 1.0


class ShardedDatabase(Mending):
    """What all threads of this process know of one alias's shards.

    `_opening` guards `_shards`, and lets one thread of the process at a time open or inspect a
    database. Order of locks: a `ThreadConnections.lock`, then `_opening`, then the directory's lock.
    """

    def __init__(
        self,
        directory: DatabaseDirectory,
        shards: int,
        timeout_s: float,
        kind: DatabaseSpec,
    ) -> None:
        super().__init__(directory, shards, timeout_s, kind)
        self.request = 0
        self._requests = itertools.count(1)
        self._shards: list[Database | None] = [None] * shards

    def end_request(self) -> None:
        """Have every connection look at its file before it is used again."""
        self.request = next(self._requests)

    # -- one operation -----------------------------------------------------------------------

    def read(self, number: int, sql: str, key: str) -> list[Any]:
        """Return the rows of one SELECT for a key that is alive. The path of every hit."""
        handle = self.registry.current()
        handle.inside = True
        try:
            with handle.lock:
                now = clock.wall_s()
                con = handle.connections[number]
                if (
                    con is not None
                    and con.request == self.request
                    and 0 <= now - con.checked_s < _LOOK_AGAIN_S
                ):
                    try:
                        return con.execute(sql, (key, now)).fetchall()
                    except (sqlite3.Error, OSError):
                        pass  # what it was shows when it is done again, with care
                rows: list[Any] = self._carefully(
                    handle, number, _select, (sql, key), writing=False
                )
                return rows
        finally:
            handle.inside = False

    def run(self, number: int, work: Callable[..., Any], *args: Any, writing: bool = True) -> Any:
        """Return `work(shard, connection, *args)`; every error as the cache's own."""
        handle = self.registry.current()
        handle.inside = True
        try:
            with handle.lock:
                return self._carefully(handle, number, work, args, writing=writing)
        finally:
            handle.inside = False

    def _carefully(
        self,
        handle: ThreadConnections,
        number: int,
        work: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        writing: bool,
    ) -> Any:
        """Run it, and again after what went wrong was mended; it never runs twice with effect."""
        attempt, hard = 0, False
        began_s = clock.monotonic_s()
        while attempt < _ATTEMPTS:
            torn = handle.torn
            con: Connection | None = None
            try:
                con = self._connected(handle, number)
                shard = self._shards[number]
                if shard is None or shard.database_identity != con.identity:
                    raise FileNotFoundError(2, "was replaced by another thread")
                result = work(shard, con, *args)
            except (sqlite3.Error, OSError, DatabaseDamaged) as exc:
                # What others do meanwhile, a fork or a removal, is no failed attempt.
                if is_closed(exc):  # by a fork, so it did not commit
                    handle.drop(number)
                    attempt += handle.torn == torn
                    continue
                in_time = clock.monotonic_s() - began_s < self._timeout_s
                if (
                    attempt == _ATTEMPTS - 1
                    or (is_busy(exc) and not in_time)
                    or not self._mended(handle, number, con, exc, hard=hard)
                ):
                    raise translate_error(
                        exc,
                        writing=writing,
                        path=self._databases[number],
                        timeout_s=self._timeout_s,
                    ) from exc
                hard = suspects_damage(exc) or is_full(exc)
                attempt += not (in_time and self._was_removed(number, exc))
            else:
                if writing:
                    self._kind.after_write(shard, con)
                return result
        raise StoreUnavailable(f"{self._databases[number]}: keeps changing; nothing was done")

    # -- connections -------------------------------------------------------------------------

    def _connected(self, handle: ThreadConnections, number: int) -> Connection:
        """Return the thread's connection, to the file that is at the path now."""
        con = handle.connections[number]
        request = self.request  # before the look: one that ends meanwhile asks for another
        if con is not None:
            if identity_of(self._databases[number]) == con.identity:
                con.request, con.checked_s = request, clock.wall_s()
                return con
            handle.drop(number)
        shard = self._shard(handle, number)
        path = self._database_now(number)
        con = Connection(path, self._timeout_s, handle, self._kind.pragmas)
        # SQLite has opened some file; if this one is there after, and was before (when its shard
        # was made), it is this one.
        if identity_of(self._databases[number]) != shard.database_identity:
            con.close()
            raise FileNotFoundError(2, "was replaced while it was opened")
        con.identity = shard.database_identity
        con.request, con.checked_s = request, clock.wall_s()
        handle.connections[number], handle.opening = con, None
        return con

    def _shard(self, handle: ThreadConnections, number: int) -> Database:
        """Return the process's shard for the file at the path, opened (and made) where needed."""
        with self._opening:
            shard = self._shards[number]
            found = identity_of(self._databases[number])
            if shard is not None and found == shard.database_identity:
                with contextlib.suppress(OSError):  # a link that leads elsewhere is made anew
                    self.directory.current(number)
                    return shard
            with self.directory.locked():
                try:
                    shard = self._open(handle, number)
                except (sqlite3.Error, DatabaseDamaged) as exc:
                    if not suspects_damage(exc):
                        raise
                    self.directory.set_aside(number, str(exc))
                    shard = self._open(handle, number)
            self._shards[number] = shard
            return shard

    def _open(self, handle: ThreadConnections, number: int) -> Database:
        """Open a shard; under the directory's lock."""
        self.directory.make_shard(number)
        found = identity_of(self._databases[number])
        con = Connection(self._database_now(number), self._timeout_s, handle)
        try:
            shard: Database = self._kind.open(str(self.directory.current(number)), con)
        finally:
            con.close()
            handle.opening = None
        if found is None or identity_of(self._databases[number]) != found:
            raise FileNotFoundError(2, "was removed while it was opened")
        shard.database_identity = found
        return shard

    def remove(self, number: int) -> None:
        """Remove a shard with all that is in it; every process then meets in a new one."""
        handle = self.registry.current()
        handle.inside = True
        try:
            with handle.lock, self._opening, self.directory.locked():  # no fork in between
                self.directory.remove(number)
        finally:
            handle.inside = False

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection of this process."""
        self.registry.close(self._timeout_s)

    def after_fork_in_child(self) -> None:
        """Give up what the parent was doing; its lock on the directory stays its own."""
        self.directory.unlock()
        self.registry.after_fork_in_child()


def _select(_shard: Database, con: Connection, sql: str, key: str) -> list[Any]:
    return con.execute(sql, (key, clock.wall_s())).fetchall()
