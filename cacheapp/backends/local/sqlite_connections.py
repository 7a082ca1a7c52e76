"""Each thread's SQLite connections, which survive the end of threads and forks of the process.

Invariants:

- Only the thread of a `ThreadConnections` uses its connections, while it holds the `lock`. Other
  threads take that lock only to close the connections: before a fork, and in
  `ConnectionRegistry.close`.
- No connection is open while `os.fork` runs. SQLite keeps one record of locks per process and file
  (`unixInodeInfo`, and in WAL mode `unixShmNode`): a child that inherited one would treat the locks
  of the parent's threads as its own, and wait for them for ever. So `before_fork` takes the lock of
  every thread, which waits for operations in flight, and closes all connections. Both processes
  open new ones when they next need them.
- A child that inherited connections all the same, because C code forked or an operation did not
  end in time, closes those that were not in use: then SQLite's records are empty again. That
  changes nothing for the parent, whose locks belong to its process. A connection that was in use
  may be neither closed (its rollback would change the memory that all processes share) nor used,
  and SQLite's own locks may be held: then no database can be used in this child.
- Lock order: `ConnectionRegistry._lock`, then any `ThreadConnections.lock`. A thread that holds a
  `ThreadConnections.lock` never takes `ConnectionRegistry._lock`.

A signal handler or finaliser runs between two bytecodes of a thread, perhaps inside an operation of
it. A cache call finds that from the thread's own lock, and raises `ReentrantCall`. The interpreter
enters and leaves a `with` block over such a lock, or over an `sqlite3.Connection`, in one step each:
so no exception of a handler leaves a lock held or a transaction open. A fork from a handler closes
the connection of the interrupted operation, which rolls its transaction back. The operation then
finds its connection closed. No COMMIT can have run, so it starts again: in the parent, and in the
child too if the handler returns there.
"""

import contextlib
import ctypes
import os
import sqlite3
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from urllib.parse import quote

from cacheapp import clock
from cacheapp.backends.local import forks
from cacheapp.backends.local.descriptors import Descriptors, are_intact, parked
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.slot_file import Identity
from cacheapp.errors import StoreUnavailable
from cacheapp.thread_lock import reentrant_lock


class Connection:
    """One open connection. A single cursor runs every statement, so closing it ends them all.

    SQLite keeps a closed connection alive, with its locks, while a statement is unfinished.

    A transaction is `with connection.sqlite:` around BEGIN IMMEDIATE and what follows: it commits at
    the end, or rolls back after an exception.
    """

    def __init__(
        self, path: str, timeout_s: float, thread: "ThreadConnections", pragmas: Sequence[str] = ()
    ) -> None:
        """Open an existing file: `mode=rw` never creates one. A fork finds it by `thread`."""
        self.identity: Identity = (0, 0)
        self.descriptors: Descriptors = {}  # its own, and that of the shared memory
        self.request = -1  # the number of the request in which the file was last checked
        self.checked_s = 0.0  # and the wall time
        self.volume: int | None = None  # bytes in use, as the last `Shard.volume()` found
        self.writes = 0  # since the last check of the WAL's size
        # When a checkpoint may wait for the WAL again, by the length of the wait.
        self.next_checkpoint_s: defaultdict[int, float] = defaultdict(float)
        thread.close_opening()
        thread.opening = self
        # `connect` would open it before it is in `self`. What is lost there is open until the garbage
        # collector finds it, as a connection and its cache of statements refer to each other.
        self.sqlite = sqlite3.Connection.__new__(sqlite3.Connection)
        sqlite3.Connection.__init__(
            self.sqlite,
            f"file:{quote(path)}?mode=rw",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,  # a fork closes it from another thread
        )
        self._cursor = self.sqlite.cursor()
        self.execute: Callable[..., sqlite3.Cursor] = self._cursor.execute
        try:
            for pragma in pragmas:
                self.execute(pragma).fetchall()
        except BaseException:
            self.close()
            raise

    def end_select(self) -> None:
        """End an interrupted SELECT, which would keep the WAL from starting over."""
        try:  # noqa: SIM105 (`suppress` is Python code, which a signal handler could interrupt)
            self.execute("")
        except sqlite3.Error:  # closed by a fork
            pass

    def close(self) -> None:
        """Close the cursor, then the connection. An interrupted call is repeated.

        Once SQLite has closed it, its descriptors may be others'.
        """
        if not self.is_open():
            return
        if are_intact(self.descriptors):
            self._close()
        else:
            with parked(self.descriptors):
                self._close()

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error, AttributeError):  # there may be none yet
            self._cursor.close()
        self.sqlite.close()

    def is_open(self) -> bool:
        """Return False before SQLite has opened it, and after it has closed it.

        SQLite may wait for the mutex of the connection: ask only if its thread does not use it.
        """
        try:
            return self.sqlite.total_changes >= 0
        except (AttributeError, sqlite3.ProgrammingError) as exc:
            if is_interruption(exc):
                raise
            return False

    def abandon(self) -> None:
        """Never close it, not even when this process ends."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))


class ThreadConnections:
    """One thread's connections, one per shard, opened when first needed.

    `lock` guards all fields. The thread holds it during an operation; `is_inside()` returns True
    in the thread that holds it.
    """

    __slots__ = (
        "closed_by_forks",
        "connections",
        "ended",
        "is_inside",
        "lock",
        "opening",
    )

    def __init__(self, shards: int) -> None:
        self.lock = reentrant_lock()
        self.is_inside: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self.connections: list[Connection | None] = [None] * shards
        self.opening: Connection | None = None  # one that is not yet in the list
        self.closed_by_forks = 0  # how often a fork closed the connection of a running operation
        self.ended = False

    def drop(self, number: int) -> None:
        """Close the connection to one shard."""
        connection = self.connections[number]
        if connection is not None:
            connection.close()  # first: if it is interrupted, the next call closes it
            self.connections[number] = None

    def close_opening(self) -> None:
        """Close the connection that is not yet in the list."""
        if self.opening is not None:
            self.opening.close()
            self.opening = None

    def close(self) -> None:
        """Close all connections."""
        for number in range(len(self.connections)):
            self.drop(number)
        if self.opening is not None:
            self.opening.close()  # and stays known: a signal handler may fork before it is open

    def close_within(self, seconds: float) -> None:
        """Close all connections when the lock can be acquired within this time."""
        if self.is_inside():
            # This is a signal handler. The interrupted operation starts again.
            self.closed_by_forks += 1
            self.close()
            return
        try:
            if self.lock.acquire(timeout=max(0.0, seconds)):
                self.close()
        finally:
            # The first call here, so that no exception of a signal handler comes before it.
            try:  # noqa: SIM105 (`suppress` is Python code, which a handler could interrupt)
                self.lock.release()
            except RuntimeError:  # not acquired
                pass

    def opened(self) -> list[Connection]:
        """Return the connections that are open; see `Connection.is_open`."""
        return [each for each in (*self.connections, self.opening) if each and each.is_open()]

    def abandon(self) -> None:
        """Forget all connections without closing them."""
        for connection in (*self.connections, self.opening):
            if connection is not None:
                connection.abandon()
        self.connections = [None] * len(self.connections)
        self.opening = None


class _ThreadExit:
    """A thread-local object whose finaliser closes the connections of a thread that has ended."""

    def __init__(self, thread: ThreadConnections) -> None:
        self._thread = thread

    def __del__(self) -> None:
        self._thread.ended = True
        # No wait: another thread takes the lock only to close the connections itself.
        if not self._thread.is_inside():
            self._thread.close_within(0.0)


class ConnectionRegistry:
    """The connections of all threads of this process, for one `ShardedDatabase`."""

    def __init__(self, shards: int, fork_wait_s: float = 60.0) -> None:
        self._shards = shards
        self._fork_wait_s = fork_wait_s
        self._lock = forks.ForkLock()
        self._all: list[ThreadConnections] = []  # guarded by _lock; the strong references
        self._local = threading.local()
        self._forks: list[list[ThreadConnections]] = []  # whose locks each fork in progress holds
        _inherited.registries.add(self)

    def __repr__(self) -> str:
        opened = sum(con is not None for thread in self._all for con in thread.connections)
        return f"<ConnectionRegistry of {len(self._all)} threads, {opened} connections>"

    def current(self) -> ThreadConnections:
        """Return this thread's connections."""
        if not forks.mark[0]:
            forks.recover()
        try:
            thread: ThreadConnections = self._local.connections
        except AttributeError:
            thread = self._new()
            # First: a thread whose connections are not closed at its end would keep them for ever.
            self._local.exit = _ThreadExit(thread)
            self._local.connections = thread
        if self._forks and not thread.is_inside():
            # A fork waits for this thread's lock, and this thread could take it again and again
            # before the fork does. So let the fork finish first; but not during an operation,
            # because the fork waits for its end.
            with self._lock.lock:
                pass
        return thread

    def _new(self) -> ThreadConnections:
        if not _inherited.usable:
            raise StoreUnavailable(
                "this process was forked while another thread of its parent used SQLite, which can "
                "therefore not be used here; nothing was done. Fork before threads use a cache, or "
                "start a new program"
            )
        thread = ThreadConnections(self._shards)
        with self._lock.lock:
            self._all = [*(other for other in self._all if not other.ended), thread]
        return thread

    def count_open(self, number: int) -> int:
        """Return how many connections to one shard are open, or more if some are being opened."""
        return sum(
            (thread.connections[number] or thread.opening) is not None for thread in self._all
        )

    def close(self, within_s: float) -> None:
        """Close the connections of all threads, each after its operation in flight."""
        if not forks.mark[0]:
            forks.recover()
        deadline = clock.monotonic_s() + within_s
        for thread in self._all:  # the list is never changed, only replaced
            thread.close_within(deadline - clock.monotonic_s())

    def before_fork(self) -> None:
        """Wait for the operations in flight, close every connection, and keep the locks.

        Python forks even if this raises, and reports the exception as ignored. So an exception of
        a signal handler is raised only when everything is ready for the fork. The wait has an end:
        an operation may wait for a lock that this thread holds, if a signal handler forks.
        """
        interruption: BaseException | None = None
        try:
            self._lock.before()
        except BaseException as exc:  # noqa: BLE001 (raised below)
            interruption = exc
        held: list[ThreadConnections] = []
        self._forks.append(held)
        deadline = clock.monotonic_s() + self._fork_wait_s
        for thread in self._all:
            inside = thread.is_inside()  # a signal handler forks: see the module's docstring
            thread.closed_by_forks += inside
            while True:
                try:
                    left_s = max(0.0, deadline - clock.monotonic_s())
                    if thread.is_inside() or thread.lock.acquire(timeout=left_s):
                        if not inside and thread not in held:
                            held.append(thread)
                        thread.close()
                    break
                except BaseException as exc:  # noqa: BLE001 (raised below)
                    interruption = exc
                    if isinstance(exc, Exception) and not is_interruption(exc):
                        break
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Release the threads' locks."""
        _release(self._forks.pop() if self._forks else [])
        self._lock.in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, and all that this thread has done in the parent."""
        _inherited.judge()
        threads, self._all = self._all, []
        self._local = threading.local()
        self._forks = []
        self._lock.in_child()
        for thread in threads:
            if _inherited.usable:
                thread.close()
            else:
                thread.abandon()

    def was_in_use(self) -> bool:
        """Return True, in a forked child, if it inherited a connection that was in use."""
        return any(
            bool(thread.opened())
            if thread.is_inside()  # of this operation, or of `before_fork`
            else not thread.lock.acquire(blocking=False)  # never released: it is forgotten
            for thread in self._all
        )


def _release(threads: list[ThreadConnections]) -> None:
    """Release the locks, also if a signal handler raises between two of them."""
    interruption: BaseException | None = None
    while threads:
        try:
            _release_each(threads)
        except BaseException as exc:  # noqa: BLE001 (raised below)
            interruption = exc
    if interruption is not None:
        raise interruption


def _release_each(threads: list[ThreadConnections]) -> None:
    while threads:
        if threads[-1].is_inside():
            threads[-1].lock.release()
        del threads[-1]


class _Inherited:
    """Whether a forked child may use SQLite. One decision for all databases, before any is closed."""

    def __init__(self) -> None:
        self.registries: weakref.WeakSet[ConnectionRegistry] = weakref.WeakSet()
        self.usable = True
        self._judged = os.getpid()

    def judge(self) -> None:
        """Decide once in each process."""
        if self._judged != os.getpid():
            self._judged = os.getpid()
            in_use = [registry.was_in_use() for registry in list(self.registries)]
            self.usable = self.usable and not any(in_use)


_inherited = _Inherited()
