"""Each thread's SQLite connections, and how they survive threads that end and processes that fork.

Invariants:

- A connection is used by the thread of its handle alone, while it holds `ThreadConnections.lock`. Others take
  that lock only to close it: before a fork, and in `ConnectionRegistry.close`.
- No connection is open while the process forks. SQLite keeps one record of locks per process and
  file (`unixInodeInfo`, and in WAL mode `unixShmNode`): a child that inherits one believes that it
  holds what a thread of the parent held, and waits for it for ever. So `before_fork` takes every
  handle's lock, which waits for operations in flight, closes everything, and both processes open
  anew when they next need to.
- Order of locks: `ConnectionRegistry._lock`, then any `ThreadConnections.lock`. Whoever holds a `ThreadConnections.lock` never takes
  `ConnectionRegistry._lock`.

A signal handler runs between two bytecodes of the main thread, perhaps inside an operation of that
thread, whose lock it could wait for for ever. `ThreadConnections.inside` tells: a cache call from the handler
gets a handle of its own; a fork from the handler closes the connection under the operation, which
rolls its transaction back. The operation then finds its connection closed, and as no COMMIT can
have run, it begins again: in the parent, and in the child too should the handler return there.
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
    """One open connection. A single cursor runs every statement, so that closing it ends them all.

    With a statement left unfinished, SQLite would keep a closed connection alive, locks and all.
    """

    def __init__(
        self, path: str, timeout_s: float, handle: "ThreadConnections", pragmas: Sequence[str] = ()
    ) -> None:
        """Open an existing file: `mode=rw` never creates one. A fork finds it by `handle`."""
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
        self.request = -1  # the store's request number when the file was last looked at
        self.checked_s = 0.0  # and the wall time
        self.volume: int | None = None  # bytes in use, as the last `Shard.volume()` found
        self.writes = 0  # since the size of the WAL was last looked at
        # When the WAL may be waited for again, by how long the wait is.
        self.next_checkpoint_s: defaultdict[int, float] = defaultdict(float)
        handle.opening = self
        try:
            for pragma in pragmas:
                self.execute(pragma).fetchall()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock; commit at the end, or roll back what an exception leaves."""
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """End the open transaction, if there is one, without effect."""
        with contextlib.suppress(sqlite3.Error):
            if self._sqlite.in_transaction:
                self.execute("ROLLBACK")

    def close(self) -> None:
        """Close cursor, then connection; safe to call twice."""
        with contextlib.suppress(sqlite3.Error):
            self._cursor.close()
        self._sqlite.close()


class ThreadConnections:
    """One thread's connections, one per shard, opened when first needed.

    `lock` guards all fields but `inside`, which its thread alone writes, before it takes the lock.
    """

    __slots__ = ("connections", "ended", "inside", "lock", "nested", "opening", "thread", "torn")

    def __init__(self, shards: int) -> None:
        # Reentrant: a signal handler may fork while this thread prepares a fork.
        self.lock = threading.RLock()
        self.inside = False
        self.thread = threading.get_ident()
        self.connections: list[Connection | None] = [None] * shards
        self.opening: Connection | None = None  # one that is not yet in the list
        self.nested: ThreadConnections | None = None
        self.torn = 0  # how often a fork closed connections under a running operation
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
    """Stands in a thread's locals: goes when the thread ends, and closes its connections then."""

    def __init__(self, handle: ThreadConnections) -> None:
        self._handle = handle

    def __del__(self) -> None:
        handle: ThreadConnections | None = self._handle
        while handle is not None:
            handle.ended = True
            # Not waiting: others take the lock only to close the connections themselves.
            if handle.lock.acquire(blocking=False):
                try:
                    handle.close()
                finally:
                    handle.lock.release()
            handle = handle.nested


class ConnectionRegistry:
    """The handles of all threads of this process, for one store."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        # Reentrant: a signal handler may fork while this thread makes its handle.
        self._lock = threading.RLock()
        self._all: list[ThreadConnections] = []  # guarded by _lock; the strong references
        self._here = threading.local()
        self._held: list[list[ThreadConnections]] = []  # whose locks the forks in progress hold

    def __repr__(self) -> str:
        opened = sum(con is not None for handle in self._all for con in handle.connections)
        return f"<ConnectionRegistry of {len(self._all)} threads, {opened} connections>"

    def current(self) -> ThreadConnections:
        """Return this thread's handle, or one for the operation inside another operation."""
        try:
            handle: ThreadConnections = self._here.handle
        except AttributeError:
            handle = self._here.handle = self._new()
            self._here.owner = _ThreadExit(handle)
        if self._held and not handle.inside:
            # A fork waits for our lock, and would go on doing so if we were to take it again and
            # again: let it go first. Not from inside an operation, whose lock it may wait for.
            with self._lock:
                pass
        while handle.inside:
            if handle.nested is None:
                handle.nested = self._new()
            handle = handle.nested
        return handle

    def _new(self) -> ThreadConnections:
        handle = ThreadConnections(self._shards)
        with self._lock:
            self._all = [other for other in self._all if not other.ended]
            self._all.append(handle)
        return handle

    def close(self, within_s: float) -> None:
        """Close the connections of all threads, each when its operation in flight is over."""
        with self._lock:
            handles = list(self._all)
        deadline = clock.monotonic_s() + within_s
        for handle in handles:
            if handle.lock.acquire(timeout=max(0.0, deadline - clock.monotonic_s())):
                try:
                    handle.close()
                finally:
                    handle.lock.release()

    def before_fork(self) -> None:
        """Wait for the operations in flight and close every connection; keep the locks.

        Python forks whatever this raises, and says that it was ignored. So what a signal handler
        raises meanwhile is raised when all is ready for the fork.
        """
        self._lock.acquire()
        me = threading.get_ident()
        held: list[ThreadConnections] = []
        self._held.append(held)
        interruption: BaseException | None = None
        for handle in self._all:
            if handle.inside and handle.thread == me:
                handle.torn += 1  # a signal handler forks: see the module's docstring
            else:
                interruption = _taken(handle) or interruption
                held.append(handle)
            handle.close()
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        for handle in self._held.pop():
            handle.lock.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the threads that stayed with the parent; the one that forked goes on."""
        me = threading.get_ident()
        self._all = [handle for handle in self._all if handle.thread == me]
        self.after_fork_in_parent()


def _taken(handle: ThreadConnections) -> BaseException | None:
    """Take the lock; return what a signal handler raised while it was waited for."""
    interruption: BaseException | None = None
    while True:
        try:
            handle.lock.acquire()
        except BaseException as exc:  # noqa: BLE001 (raised by `before_fork`, a little later)
            interruption = exc
        else:
            return interruption
