"""How an environment is opened, found again, and closed for forks; `environment` says why it holds."""

import contextlib
import errno
import threading
import time
from pathlib import Path

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.directory import Place
from cacheapp.backends.lmdb.limits import Limits
from cacheapp.backends.lmdb.reference_bits import RETIRED, Marks
from cacheapp.backends.lmdb.session import Session, Transaction
from cacheapp.backends.local.slot_file import identity_of

LOOK_EVERY_S = 1.0
_PAUSE_S = 0.0002
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


class Handle:
    """Whether a thread is inside, and how deep: a signal handler may be inside once more."""

    __slots__ = ("inside", "thread")

    def __init__(self) -> None:
        self.inside = 0
        self.thread = threading.get_ident()


class _Owner:
    """Stands in a thread's locals: goes when the thread ends."""

    def __init__(self, handle: Handle, handles: set[Handle]) -> None:
        self._handle = handle
        self._handles = handles

    def __del__(self) -> None:
        self._handles.discard(self._handle)


class _Here(threading.local):
    handle: Handle
    owner: _Owner


class Opening:
    """What this process knows of the environment at one LOCATION, and of its threads inside it.

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
        self._handles: set[Handle] = set()
        self.here = _Here()
        self._writer: tuple[int, Transaction] | None = None

    def __repr__(self) -> str:
        state = "open" if self.session is not None else "closed"
        return f"<{type(self).__name__} {self.place.path} {state}, {len(self._handles)} threads>"

    def handle(self) -> Handle:
        """Return this thread's handle."""
        try:
            return self.here.handle
        except AttributeError:
            handle = Handle()
            with self._opening:
                self._handles.add(handle)
            self.here.handle = handle
            self.here.owner = _Owner(handle, self._handles)
            return handle

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
