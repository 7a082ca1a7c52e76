"""Each thread's SQLite connections, which survive the end of threads and forks of the process.

Invariants:

- Only the thread of a `ThreadConnections` uses its connections, while it holds the `lock`. Other
  threads take that lock only to close the connections: before a fork, and in
  `ConnectionRegistry.close`.
- No connection is open while the process forks. SQLite keeps one record of locks per process and
  file (`unixInodeInfo`, and in WAL mode `unixShmNode`): a child that inherited one would treat the
  locks of the parent's threads as its own, and wait for them for ever. So `before_fork` takes the
  lock of every thread, which waits for operations in flight, and closes all connections. Both
  processes open new ones when they next need them.
- Lock order: `ConnectionRegistry._lock`, then any `ThreadConnections.lock`. A thread that holds a
  `ThreadConnections.lock` never takes `ConnectionRegistry._lock`.

A signal handler runs between two bytecodes of the main thread, perhaps inside an operation of that
thread, and would wait for the operation's lock for ever. `ThreadConnections.inside` shows this: a
cache call from the handler uses a nested `ThreadConnections`; a fork from the handler closes the
interrupted operation's connection, which rolls its transaction back. The operation then finds its
connection closed. No COMMIT can have run, so it starts again: in the parent, and in the child too
if the handler returns there.
"""

import contextlib
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from cacheapp import clock
from cacheapp.backends.local.slot_file import Identity


class Connection:
    """One open connection. A single cursor runs every statement, so closing it ends them all.

    SQLite keeps a closed connection alive, with its locks, while a statement is unfinished.
    """

    def __init__(
        self, path: str, timeout_s: float, thread: "ThreadConnections", pragmas: Sequence[str] = ()
    ) -> None:
        """Open an existing file: `mode=rw` never creates one. A fork finds it by `thread`."""
        self._sqlite = sqlite3.connect(
            f"file:{quote(path)}?mode=rw",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,  # a fork closes it from another thread
        )
        self._cursor = self._sqlite.cursor()
        self.execute: Callable[..., sqlite3.Cursor] = self._cursor.execute
        self.identity: Identity = (0, 0)
        self.request = -1  # the number of the request in which the file was last checked
        self.checked_s = 0.0  # and the wall time
        self.volume: int | None = None  # bytes in use, as the last `Shard.volume()` found
        self.writes = 0  # since the last check of the WAL's size
        # When a checkpoint may wait for the WAL again, by the length of the wait.
        self.next_checkpoint_s: defaultdict[int, float] = defaultdict(float)
        thread.opening = self
        try:
            for pragma in pragmas:
                self.execute(pragma).fetchall()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock; commit at the end, or roll back after an exception."""
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Roll back the open transaction, if there is one."""
        with contextlib.suppress(sqlite3.Error):
            if self._sqlite.in_transaction:
                self.execute("ROLLBACK")

    def close(self) -> None:
        """Close the cursor, then the connection; safe to call twice."""
        with contextlib.suppress(sqlite3.Error):
            self._cursor.close()
        self._sqlite.close()


class ThreadConnections:
    """One thread's connections, one per shard, opened when first needed.

    `lock` guards all fields but `inside`, which only its thread writes, before it takes the lock.
    """

    __slots__ = (
        "closed_by_forks",
        "connections",
        "ended",
        "ident",
        "inside",
        "lock",
        "nested",
        "opening",
    )

    def __init__(self, shards: int) -> None:
        # Reentrant: a signal handler may fork while this thread prepares a fork.
        self.lock = threading.RLock()
        self.inside = False
        self.ident = threading.get_ident()
        self.connections: list[Connection | None] = [None] * shards
        self.opening: Connection | None = None  # one that is not yet in the list
        self.nested: ThreadConnections | None = None
        self.closed_by_forks = 0  # how often a fork closed the connection of a running operation
        self.ended = False

    def drop(self, number: int) -> None:
        """Close the connection to one shard."""
        connection = self.connections[number]
        self.connections[number] = None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for number in range(len(self.connections)):
            self.drop(number)
        if self.opening is not None:
            self.opening.close()


class _ThreadExit:
    """A thread-local object whose finaliser closes the connections of a thread that has ended."""

    def __init__(self, thread: ThreadConnections) -> None:
        self._thread = thread

    def __del__(self) -> None:
        thread: ThreadConnections | None = self._thread
        while thread is not None:
            thread.ended = True
            # No wait: another thread takes the lock only to close the connections itself.
            if thread.lock.acquire(blocking=False):
                try:
                    thread.close()
                finally:
                    thread.lock.release()
            thread = thread.nested


class ConnectionRegistry:
    """The connections of all threads of this process, for one `ShardedDatabase`."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        # Reentrant: a signal handler may fork while this thread is registered.
        self._lock = threading.RLock()
        self._all: list[ThreadConnections] = []  # guarded by _lock; the strong references
        self._local = threading.local()
        self._forks: list[list[ThreadConnections]] = []  # the locks of forks in progress

    def __repr__(self) -> str:
        opened = sum(con is not None for thread in self._all for con in thread.connections)
        return f"<ConnectionRegistry of {len(self._all)} threads, {opened} connections>"

    def current(self) -> ThreadConnections:
        """Return this thread's connections; nested ones during an operation of this thread."""
        try:
            thread: ThreadConnections = self._local.connections
        except AttributeError:
            thread = self._local.connections = self._new()
            self._local.exit = _ThreadExit(thread)
        if self._forks and not thread.inside:
            # A fork waits for this thread's lock, and this thread could take it again and again
            # before the fork does. So let the fork finish first; but not during an operation,
            # because the fork waits for its end.
            with self._lock:
                pass
        while thread.inside:
            if thread.nested is None:
                thread.nested = self._new()
            thread = thread.nested
        return thread

    def _new(self) -> ThreadConnections:
        thread = ThreadConnections(self._shards)
        with self._lock:
            self._all = [other for other in self._all if not other.ended]
            self._all.append(thread)
        return thread

    def close(self, within_s: float) -> None:
        """Close the connections of all threads, each after its operation in flight."""
        with self._lock:
            threads = list(self._all)
        deadline = clock.monotonic_s() + within_s
        for thread in threads:
            if thread.lock.acquire(timeout=max(0.0, deadline - clock.monotonic_s())):
                try:
                    thread.close()
                finally:
                    thread.lock.release()

    def before_fork(self) -> None:
        """Wait for the operations in flight, close every connection, and keep the locks.

        Python forks even if this raises, and reports the exception as ignored. So an exception of
        a signal handler is raised only when everything is ready for the fork.
        """
        self._lock.acquire()
        me = threading.get_ident()
        held: list[ThreadConnections] = []
        self._forks.append(held)
        interruption: BaseException | None = None
        for thread in self._all:
            if thread.inside and thread.ident == me:
                thread.closed_by_forks += 1  # a signal handler forks: see the module's docstring
            else:
                interruption = _acquire(thread) or interruption
                held.append(thread)
            thread.close()
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Release the threads' locks."""
        for thread in self._forks.pop():
            thread.lock.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the threads that exist only in the parent, and release the locks."""
        me = threading.get_ident()
        self._all = [thread for thread in self._all if thread.ident == me]
        self.after_fork_in_parent()


def _acquire(thread: ThreadConnections) -> BaseException | None:
    """Take the lock; return the exception that a signal handler raised during the wait."""
    interruption: BaseException | None = None
    while True:
        try:
            thread.lock.acquire()
        except BaseException as exc:  # noqa: BLE001 (raised at the end of `before_fork`)
            interruption = exc
        else:
            return interruption
