"""One LMDB environment per process and LOCATION: opened late, closed for forks, found again.

Invariants:

- A process opens the files of an environment at most once at a time (LMDB's locks belong to process
  and file). All aliases of one LOCATION share an `Environment`; the registry has one for each.
- No environment is open while the process forks: a child that inherited one would free its
  parent's reader slots when it closed it. `before_fork` takes `_opening`, closes the session to
  newcomers and waits until no thread is inside one. Both sides open anew when they next need to.
- A thread is *inside* from before it reads `session` until its transaction has ended. It writes
  that down before it looks, and the fork looks after it has taken the session away: one of them
  sees the other. Nobody waits for `_opening` while inside.
- A transaction is free of calls to anything but LMDB, and holds nothing that leads into the map:
  values are copied out.

A signal handler runs between two bytecodes of the main thread, perhaps inside an operation. If it
writes or forks, the transaction under it is rolled back. The operation meets that at its next step;
as no commit can have run, it begins again.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.limits import Limits
from cacheapp.backends.lmdb.marks import BUSY, RETIRED, Marks
from cacheapp.backends.lmdb.place import DATABASES, Place, is_written_in_place, opened
from cacheapp.backends.slots import Identity, identity_of
from cacheapp.errors import StoreUnavailable

LOOK_EVERY_S = 1.0
_ATTEMPTS = 8
_PAUSE_S = 0.0002
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
Transaction: TypeAlias = "lmdb.Transaction[bytes]"
ResultT = TypeVar("ResultT")


class LookAgain(Exception):
    """The session must not be used before somebody has looked at the place."""


class Session:
    """An environment that is open, and what belongs to it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.data = str(path / "data.mdb")
        self.limits = limits
        self.marks = Marks(path / "marks", limits.slots)
        self.head = self.marks.head
        self.environment = opened(path, limits, through_map=is_written_in_place(path))
        self.begin = self.environment.begin
        try:
            # The binding begins a write transaction for this: so whoever opens an environment
            # waits for a writer that stands still, even if he only wants to read.
            self.entries, self.queue, self.deadlines, self.meta = (
                self.environment.open_db(name, create=False) for name in DATABASES
            )
            found = os.stat(self.data)
        except BaseException:
            self.environment.close()
            raise
        self.identity: Identity = (found.st_dev, found.st_ino)
        # Of this process alone. Whoever writes has the write lock.
        self.now = 0.0  # when the write transaction that is under way began
        self.credit = 0  # a hint: bytes that may be written before the room is looked at
        self.due_s = 0.0  # a hint: when to look for expired entries again


class _Handle:
    """Whether a thread is inside, and how deep: a signal handler may be inside once more."""

    __slots__ = ("inside", "thread")

    def __init__(self) -> None:
        self.inside = 0
        self.thread = threading.get_ident()


class _Owner:
    """Stands in a thread's locals: goes when the thread ends."""

    def __init__(self, handle: _Handle, handles: set[_Handle]) -> None:
        self._handle = handle
        self._handles = handles

    def __del__(self) -> None:
        self._handles.discard(self._handle)


class _Here(threading.local):
    handle: _Handle
    owner: _Owner


class Environment:
    """What all threads and aliases of this process know of the environment at one LOCATION.

    `_opening` (reentrant, because of signal handlers) guards opening, closing and `_handles`;
    `session` is replaced whole. `_writer` is written by who holds LMDB's write lock.
    """

    marks: Marks
    """Those of the latest session, which may have been closed: a mark there does no harm."""

    def __init__(self, location: Path, limits: Limits, timeout_s: float) -> None:
        self.limits = limits
        self.place = Place(location, limits, timeout_s)
        self.session: Session | None = None
        self.look_at_s = 0.0
        self._opening = threading.RLock()
        self._handles: set[_Handle] = set()
        self.here = _Here()
        self._writer: tuple[int, Transaction] | None = None

    def __repr__(self) -> str:
        state = "open" if self.session is not None else "closed"
        return f"<Environment {self.place.path} {state}, {len(self._handles)} threads>"

    def handle(self) -> _Handle:
        """Return this thread's handle."""
        try:
            return self.here.handle
        except AttributeError:
            handle = _Handle()
            with self._opening:
                self._handles.add(handle)
            self.here.handle = handle
            self.here.owner = _Owner(handle, self._handles)
            return handle

    # -- operations --------------------------------------------------------------------------

    def get(self, name: bytes, now: float) -> bytes | None:
        """Return what stands at a key of the entries; `now` is `boot_s()`. The path of every hit."""
        try:
            handle = self.here.handle
        except AttributeError:
            handle = self.handle()
        handle.inside += 1
        try:
            session = self.session
            if session is not None and (now < self.look_at_s or self._is_there(session, now)):
                found = session.begin(session.entries).get(name)
                if not session.head[RETIRED]:
                    return found
        except (lmdb.Error, OSError):
            pass  # what it was shows when it is done again, with care
        finally:
            handle.inside -= 1
        return self._run(_get, (name,), writing=False)

    def read(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(session, transaction, *args)` of one snapshot."""
        handle = self.handle()
        handle.inside += 1
        try:
            session = self.session
            if session is not None and clock.boot_s() < self.look_at_s:
                found = self._seen(session, work, args)
                if not session.head[RETIRED]:
                    return found
        except lmdb.Error:
            pass
        finally:
            handle.inside -= 1
        return self._run(work, args, writing=False)

    def write(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Do the same in one write transaction; `lmdb.MapFullError` is left to the caller."""
        try:
            handle = self.here.handle
        except AttributeError:
            handle = self.handle()
        handle.inside += 1
        try:
            session = self.session
            if session is not None:
                return self._written(session, handle.thread, work, args)
        except lmdb.MapFullError:
            raise
        except (LookAgain, lmdb.Error):
            pass  # what it was shows when it is done again, with care
        finally:
            handle.inside -= 1
        return self._run(work, args, writing=True)

    def _written(
        self,
        session: Session,
        thread: int,
        work: Callable[..., ResultT],
        args: tuple[Any, ...],
    ) -> ResultT:
        transaction = session.begin(None, None, True)  # noqa: FBT003 (LMDB's own order)
        self._writer = (thread, transaction)
        head = session.head
        try:
            session.now = now = clock.boot_s()  # not before: the lock may have been waited for
            if now >= self.look_at_s or head[RETIRED]:
                raise LookAgain  # noqa: TRY301 (on the path of every write)
            head[BUSY] = 1
            result = work(session, transaction, *args)
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise
        finally:
            head[BUSY] = 0
        return result

    def _run(
        self, work: Callable[..., ResultT], args: tuple[Any, ...], *, writing: bool
    ) -> ResultT:
        """Run it with care, and again after what went wrong was mended: never twice with effect."""
        handle = self.handle()
        failures = 0
        while failures < _ATTEMPTS:
            session = None
            try:
                session = self._looked()
                handle.inside += 1
                try:
                    if self.session is not session:
                        continue  # a fork, or another thread: no failed attempt
                    if writing:
                        return self._written(session, handle.thread, work, args)
                    found = self._seen(session, work, args)
                    if not session.head[RETIRED]:
                        return found
                finally:
                    handle.inside -= 1
                self._drop(session)
            except LookAgain:
                pass  # the look that comes finds why
            except lmdb.MapFullError:
                raise
            except (lmdb.Error, OSError) as exc:
                failures += 1
                if failures == _ATTEMPTS or not self._mended(session, exc):
                    raise StoreUnavailable(f"{self.place.path}: {exc}; nothing was done") from exc
        raise StoreUnavailable(f"{self.place.path}: keeps changing; nothing was done")

    @staticmethod
    def _seen(session: Session, work: Callable[..., ResultT], args: tuple[Any, ...]) -> ResultT:
        transaction = session.begin()
        try:
            return work(session, transaction, *args)
        finally:
            transaction.abort()

    def is_busy(self) -> bool:
        """Return whether a writer is at work, as far as can be told without waiting."""
        session = self.session
        return session is None or session.head[BUSY] != 0

    # -- the files ---------------------------------------------------------------------------

    def end_request(self) -> None:
        """Have the next operation look at the place."""
        self.look_at_s = 0.0

    def _is_there(self, session: Session, now: float) -> bool:
        """Look at the place while inside; return whether the session's environment is there."""
        if identity_of(session.data) != session.identity:
            return False
        self.look_at_s = now + LOOK_EVERY_S
        return True

    def _looked(self) -> Session:
        """Return the session of the environment that is at the place now.

        In a signal handler, this thread may be inside already. What is under it must not hold up
        the one who has the lock and waits: it is rolled back, and does not count meanwhile.
        """
        handle = self.handle()
        depth, handle.inside = handle.inside, 0
        if depth:
            self._roll_back_what_is_under_us()
        try:
            return self._found()
        finally:
            handle.inside = depth

    def _found(self) -> Session:
        with self._opening:
            session = self.session
            if session is not None:
                if identity_of(session.data) == session.identity and not session.head[RETIRED]:
                    self.look_at_s = clock.boot_s() + LOOK_EVERY_S
                    return session
                self._drop(session)
            session = self._opened()
            session.environment.reader_check()
            self.look_at_s = clock.boot_s() + LOOK_EVERY_S
            self.marks = session.marks
            self.session = session
            return session

    def _opened(self) -> Session:
        """Open the environment that is at the place, or a new one."""
        found = self.place.whole()
        if found is not None:
            # Without the lock: the parent of a fork in a signal handler may hold it, and wait for us.
            with contextlib.suppress(OSError, lmdb.Error):  # met again below
                return Session(*found)
        with self.place.locked():
            path, limits = self.place.environment()
            try:
                return Session(path, limits)
            except _DAMAGE as exc:
                self.place.put_aside(path, str(exc))
                return Session(*self.place.environment())

    def _drop(self, session: Session | None) -> None:
        """Close a session once nobody is inside it, unless that has been done."""
        with self._opening:
            if session is not None and self.session is session:
                self.session = None
                self._wait_until_nobody_is_inside()
                session.environment.close()

    def _wait_until_nobody_is_inside(self) -> None:
        """Wait for the others. Whatever this thread is inside of, a signal handler called us."""
        me = threading.get_ident()
        for handle in list(self._handles):
            while handle.inside and handle.thread != me:
                time.sleep(_PAUSE_S)

    def _mended(self, session: Session | None, error: Exception) -> bool:
        """Return whether the operation, which had no effect, is worth another attempt."""
        if isinstance(error, _DAMAGE) and session is not None:
            with self._opening, self.place.locked():
                if identity_of(session.data) == session.identity:
                    self.place.put_aside(session.path, str(error))
            self._drop(session)
            return True
        if isinstance(error, lmdb.BadRslotError) or (
            isinstance(error, lmdb.Error) and error.code == errno.EBUSY
        ):
            # Busy: we are in a signal handler, inside a write of this thread. Closing rolls it back.
            self._drop(session)
            return True
        if isinstance(error, lmdb.ReadersFullError) and session is not None:
            return session.environment.reader_check() > 0
        if isinstance(error, lmdb.Error):
            return error.code == 0  # an object that a fork, or a handler, closed
        return isinstance(error, FileNotFoundError)

    def _roll_back_what_is_under_us(self) -> None:
        """End the write transaction that this thread was in when a signal handler came."""
        if self._writer is not None and self._writer[0] == threading.get_ident():
            self._writer[1].abort()

    def give_up(self) -> bool:
        """Remove all that is stored, for every process; return whether it was not new by then."""
        session = self.session
        with self._opening, self.place.locked():
            if session is None or identity_of(session.data) != session.identity:
                return False  # another process was faster
            self.place.remove_all()
            return True

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the environment; the next operation opens it again."""
        self._drop(self.session)

    def before_fork(self) -> None:
        """Wait until no thread is inside, and close; nobody opens until the fork is over.

        Python forks whatever this raises. So what a signal handler raises is raised at the end.
        """
        self._opening.acquire()
        interruption: BaseException | None = None
        session, self.session = self.session, None
        while session is not None:
            try:
                self._wait_until_nobody_is_inside()
                session.environment.close()
                session = None
            except BaseException as exc:  # noqa: BLE001
                interruption = exc
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """Forget the threads that stayed with the parent, and its lock on the directory."""
        me = threading.get_ident()
        self._handles = {handle for handle in self._handles if handle.thread == me}
        self.place.unlock()
        self._opening.release()

    def forget_watches(self) -> None:
        """Do nothing: stores wait, not this."""


def _get(session: Session, transaction: Transaction, name: bytes) -> bytes | None:
    return transaction.get(name, None, session.entries)
