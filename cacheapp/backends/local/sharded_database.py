"""Run one operation on one shard, over this thread's connection: open, check, recover, retry.

A connection is valid only while the path of its database leads to the file that it has open. This
is checked before every write, and before a read if a request has ended in this process or a second
has passed since the last check. So all processes notice within a request that a directory was
removed or replaced, and all use the one that is at the path.
"""

import itertools
import logging
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

from cacheapp import clock
from cacheapp.backends.local.database_directory import DatabaseDirectory
from cacheapp.backends.local.database_spec import Database, DatabaseSpec
from cacheapp.backends.local.descriptors import (
    Descriptors,
    DescriptorsLost,
    are_intact,
    descriptors_of,
    next_numbers,
    parked,
    still_intact,
)
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.slot_file import Identity, identity_of
from cacheapp.backends.local.sqlite_connections import (
    Connection,
    ConnectionRegistry,
    ThreadConnections,
)
from cacheapp.backends.local.sqlite_errors import (
    DatabaseDamaged,
    is_busy,
    is_closed,
    is_full,
    is_relocated,
    is_unopenable,
    suspects_damage,
    translate_error,
)
from cacheapp.errors import CacheappError, ReentrantCall, StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)

_ATTEMPTS = 8
_CHECK_INTERVAL_S = 1.0
_PAUSE_S = 0.01


class ShardedDatabase:
    """The databases of one directory, for all threads of this process.

    `_opening` guards `_shards`, and lets one thread of the process at a time open or inspect a
    database. A forked child replaces it. Lock order: a `ThreadConnections.lock`, then `_opening`,
    then the directory's lock.

    An operation that begins inside another one of its thread raises `ReentrantCall` before it
    acquires anything: the thread's lock shows exactly whether there is one.
    """

    def __init__(
        self, directory: DatabaseDirectory, shards: int, timeout_s: float, spec: DatabaseSpec
    ) -> None:
        # An operation waits for a lock about twice as long, if it begins again.
        self.registry = ConnectionRegistry(shards, 1.0 + 2 * timeout_s)
        self.directory = directory
        self.request = 0
        self._requests = itertools.count(1)
        self._timeout_s = timeout_s
        self._spec = spec
        self._databases = [directory.database(number) for number in range(shards)]
        self._descriptors: list[dict[int, Identity]] = [{} for _ in range(shards)]
        """All descriptors of each database, when its latest connection was opened."""
        self._shards: list[Database | None] = [None] * shards
        self._opening = reentrant_lock()

    def end_request(self) -> None:
        """Make every connection check its file before its next use."""
        self.request = next(self._requests)

    # -- one operation -----------------------------------------------------------------------

    def read(self, number: int, sql: str, key: str) -> list[Any]:
        """Return the rows of one SELECT for an unexpired key. Every hit takes this path."""
        thread = self.registry.current()
        if thread.is_inside():
            raise self._reentrant_call(number)
        with thread.lock:
            now = clock.wall_s()
            con = thread.connections[number]
            if (
                con is not None
                and con.request == self.request
                and 0 <= now - con.checked_s < _CHECK_INTERVAL_S
            ):
                try:
                    return con.execute(sql, (key, now)).fetchall()
                except BaseException as exc:
                    con.end_select()
                    if not isinstance(exc, sqlite3.Error | OSError) or is_interruption(exc):
                        raise
                    # The retry below reports it.
        rows: list[Any] = self.run(number, _select, sql, key, writing=False)
        return rows

    def run(self, number: int, work: Callable[..., Any], *args: Any, writing: bool = True) -> Any:
        """Return `work(shard, connection, *args)`; raise every error as the cache's own."""
        thread = self.registry.current()
        if thread.is_inside():
            raise self._reentrant_call(number)
        try:
            with thread.lock:
                return self._run_with_recovery(thread, number, work, args, writing=writing)
        except DescriptorsLost:
            self._close_lost(number)
        return self.run(number, work, *args, writing=writing)

    def _close_lost(self, number: int) -> None:
        """Close all connections, after other code has closed descriptors of this database."""
        known = self._descriptors[number]
        if not are_intact(known):
            logger.warning(
                "%s: other code of this process closed its descriptors; opening it again",
                self._databases[number],
                extra={"event": "cache_descriptors_lost"},
            )
        with parked({n: found for each in self._descriptors for n, found in each.items()}):
            try:
                self.registry.before_fork()  # closes them, each after its operation in flight
                for each in self._descriptors:
                    each.clear()
            finally:
                self.registry.after_fork_in_parent()

    def _reentrant_call(self, number: int) -> ReentrantCall:
        return ReentrantCall(
            f"{self._databases[number]}: this thread is inside another operation on it, which a "
            "signal handler, finaliser or callback interrupts; nothing was done"
        )

    def _run_with_recovery(
        self,
        thread: ThreadConnections,
        number: int,
        work: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        writing: bool,
    ) -> Any:
        """Run the work, and again after each error that can be recovered from.

        It is repeated only if it had no effect.
        """
        attempt, repeated = 0, False
        outer = sys.exc_info()[1]  # what the caller is handling
        began_s = clock.monotonic_s()
        while attempt < _ATTEMPTS:
            closed_by_forks = thread.closed_by_forks
            con: Connection | None = None
            try:
                con = self._connected(thread, number)
                shard = self._shard_of(con, number)
                result = self._run_once(work, shard, con, args)
            except (sqlite3.Error, OSError, DatabaseDamaged) as exc:
                if is_interruption(exc):
                    raise
                # A fork or a removal by another process does not count as a failed attempt.
                if is_closed(exc):  # by a fork, so it did not commit
                    _raise_interruption(exc, outer)
                    if self.registry.current() is not thread:
                        # In a child that a signal handler has forked: its lock is another one.
                        return self.run(number, work, *args, writing=writing)
                    thread.drop(number)
                    attempt += thread.closed_by_forks == closed_by_forks
                    continue
                in_time = clock.monotonic_s() - began_s < self._timeout_s
                if (
                    attempt == _ATTEMPTS - 1
                    or (is_busy(exc) and not in_time)
                    or not self._recover(thread, number, con, exc, repeated=repeated)
                ):
                    raise self._translate(exc, number, writing=writing) from exc
                repeated = suspects_damage(exc) or is_full(exc)
                attempt += not (in_time and self._was_removed(number, exc))
            else:
                if writing:
                    self._spec.after_write(shard, con)
                return result
        raise StoreUnavailable(
            f"{self._databases[number]}: other processes keep replacing it; nothing was done"
        )

    @staticmethod
    def _run_once(
        work: Callable[..., Any], shard: Database, con: Connection, args: tuple[Any, ...]
    ) -> Any:
        try:
            return work(shard, con, *args)
        except sqlite3.Error:
            raise
        except BaseException:
            con.end_select()
            raise

    def _translate(self, error: Exception, number: int, *, writing: bool) -> CacheappError:
        path = self._databases[number]
        return translate_error(error, writing=writing, path=path, timeout_s=self._timeout_s)

    # -- connections -------------------------------------------------------------------------

    def _shard_of(self, con: Connection, number: int) -> Database:
        """Return the process's shard if it is the one that the connection has open."""
        shard = self._shards[number]
        if shard is None or shard.database_identity != con.identity:
            raise FileNotFoundError(2, "was replaced by another thread")
        return shard

    def _connected(self, thread: ThreadConnections, number: int) -> Connection:
        """Return the thread's connection to the file that is at the path now."""
        con = thread.connections[number]
        request = self.request  # read first: a request that ends during the check needs another
        if con is not None:
            if not are_intact(con.descriptors):
                raise DescriptorsLost
            if identity_of(self._databases[number]) == con.identity:
                con.request, con.checked_s = request, clock.wall_s()
                return con
            thread.drop(number)
        shard = self._shard(thread, number)
        path = self._unique_path(number)
        con = self._opened(thread, number, path)
        # SQLite does not reveal which file it has opened. The shard's file was at the path before;
        # if it is also there after, it is the one.
        if identity_of(self._databases[number]) != shard.database_identity:
            con.close()
            raise FileNotFoundError(2, "was replaced while it was opened")
        con.identity = shard.database_identity
        con.request, con.checked_s = request, clock.wall_s()
        thread.connections[number], thread.opening = con, None
        return con

    def _opened(self, thread: ThreadConnections, number: int, path: str) -> Connection:
        """Open a connection, and note its descriptors.

        SQLite keeps the descriptor of a closed connection while others are open, and uses it for
        the next one: so there is one if more descriptors of the file are open than connections.
        """
        with self._opening:  # so that the new descriptors are those of this connection
            thread.close_opening()  # left by an interrupted call; it counts as an open one
            known = still_intact(self._descriptors[number])
            main = identity_of(path)
            kept = sum(each == main for each in known.values()) > self.registry.count_open(number)
            numbers = next_numbers(3)
            con = Connection(path, self._timeout_s, thread, self._spec.pragmas)
            con.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opens the WAL
            memory = identity_of(f"{path}-shm")
            files = [
                *([] if kept else [main]),
                identity_of(f"{path}-wal"),
                *([] if memory in known.values() else [memory]),
            ]
            found = descriptors_of(
                list(filter(None, files)), numbers, list(filter(None, (main, memory)))
            )
            # Again: a thread that has just ended may have closed the shared memory, which then has
            # another number now.
            self._descriptors[number] = still_intact({**known, **found})
            con.descriptors = _of_connection(self._descriptors[number], known, memory)
        return con

    def _shard(self, thread: ThreadConnections, number: int) -> Database:
        """Return the process's shard for the file at the path; create and open it if needed."""
        with self._opening:
            shard = self._shards[number]
            found = identity_of(self._databases[number])
            if shard is not None and found == shard.database_identity:
                with suppress_failure(OSError):  # a link that leads elsewhere is replaced below
                    self.directory.current(number)
                    return shard
            with self.directory.locked():
                try:
                    shard = self._open(thread, number)
                except (sqlite3.Error, DatabaseDamaged) as exc:
                    if not suspects_damage(exc):
                        raise
                    self.directory.set_aside(number, str(exc))
                    shard = self._open(thread, number)
            self._shards[number] = shard
            return shard

    def _open(self, thread: ThreadConnections, number: int) -> Database:
        """Open a shard, under the directory's lock."""
        self.directory.make_shard(number)
        found = identity_of(self._databases[number])
        con = Connection(self._unique_path(number), self._timeout_s, thread)
        try:
            shard: Database = self._spec.open(str(self.directory.current(number)), con)
        finally:
            thread.close_opening()
        if found is None or identity_of(self._databases[number]) != found:
            raise FileNotFoundError(2, "was removed while it was opened")
        shard.database_identity = found
        return shard

    def _unique_path(self, number: int) -> str:
        """Return a path that no other database ever has, before or after the current one."""
        return str(self.directory.current(number) / self.directory.database_name)

    def remove(self, number: int) -> None:
        """Remove a shard with all its entries; every process then uses a new one."""
        thread = self.registry.current()
        if thread.is_inside():
            raise self._reentrant_call(number)
        with thread.lock, self._opening, self.directory.locked():  # no fork in between
            self.directory.remove(number)

    # -- recovery ----------------------------------------------------------------------------

    def _recover(
        self,
        thread: ThreadConnections,
        number: int,
        con: Connection | None,
        error: Exception,
        *,
        repeated: bool,
    ) -> bool:
        """Return True if the operation, which had no effect, is worth another attempt.

        `repeated`: an attempt has failed like this before, so a database that passes the check is
        treated as damaged all the same.
        """
        if is_busy(error):  # SQLite reports this without a wait where it suspects a deadlock
            time.sleep(_PAUSE_S)
            return True
        if is_full(error) and con is not None and not repeated:
            # A checkpoint writes the WAL's content mostly over pages that the database already
            # has. The space of the WAL is then enough for a delete or a `clear`.
            with suppress_failure(sqlite3.Error):
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return True
        if con is not None and not are_intact(con.descriptors):
            raise DescriptorsLost
        thread.drop(number)
        if suspects_damage(error):
            # An error that prevents the inspection also fails the next attempt, which reports it.
            with suppress_failure(sqlite3.Error, OSError):
                self._inspect(thread, number, con, error, repeated=repeated)
            return True
        if is_relocated(error):
            time.sleep(_PAUSE_S)  # the removal of a directory takes some time
            return True
        # Without a connection, the file may have disappeared while it was opened.
        return con is None or identity_of(self._databases[number]) != con.identity

    def _was_removed(self, number: int, error: Exception) -> bool:
        """Return True if the error comes from a removal, False if from a missing permission."""
        return is_relocated(error) and (
            not is_unopenable(error) or identity_of(self._databases[number]) is None
        )

    def _inspect(
        self,
        thread: ThreadConnections,
        number: int,
        con: Connection | None,
        error: Exception,
        *,
        repeated: bool,
    ) -> None:
        """Set the database aside if it is damaged, and is still the one that caused the error.

        Without a connection it is unknown which database that was; only this check counts then.
        """
        with self._opening, self.directory.locked():
            if con is not None and identity_of(self._databases[number]) != con.identity:
                return  # another process was faster
            if (repeated and con is not None) or not self._is_sound(thread, number):
                self.directory.set_aside(number, str(error))

    def _is_sound(self, thread: ThreadConnections, number: int) -> bool:
        try:
            probe = Connection(self._unique_path(number), self._timeout_s, thread)
            for sql in self._spec.probes:
                probe.execute(sql).fetchall()
            return [*probe.execute("PRAGMA quick_check(1)").fetchall()] == [("ok",)]
        except sqlite3.Error as exc:
            if suspects_damage(exc):
                return False
            raise
        finally:
            thread.close_opening()

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection of this process."""
        self.registry.close(self._timeout_s)

    def after_fork_in_child(self) -> None:
        """Drop the child's copy of the parent's directory lock and connections."""
        self._opening = reentrant_lock()
        self.directory.unlock()
        self.registry.after_fork_in_child()


def _raise_interruption(error: BaseException, outer: BaseException | None) -> None:
    """Raise the exception of a signal handler that also forked, if `error` hides one."""
    cause = error.__context__
    while isinstance(cause, sqlite3.Error):
        cause = cause.__context__
    if cause is not None and cause is not outer:
        raise cause


def _of_connection(
    found: Descriptors, before: Descriptors, memory: Identity | None
) -> dict[int, Identity]:
    """Return the descriptors that are new, and those of the shared memory."""
    return {
        each: identity
        for each, identity in found.items()
        if each not in before or identity == memory
    }


def _select(_shard: Database, con: Connection, sql: str, key: str) -> list[Any]:
    return con.execute(sql, (key, clock.wall_s())).fetchall()
