"""How an environment is opened, found again, and closed for forks; `environment` says why it holds."""

import contextlib
import errno
import threading
import time
from pathlib import Path

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.directory import EnvironmentDirectory
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.reference_bits import RETIRED, ReferenceBits
from cacheapp.backends.local.slot_file import identity_of

CHECK_INTERVAL_S = 1.0
_PAUSE_S = 0.0002
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


class ThreadState:
    """Whether a thread is inside, and how deep: a signal handler may be inside once more."""

    __slots__ = ("inside", "thread")

    def __init__(self) -> None:
        self.inside = 0
        self.thread = threading.get_ident()


class _ThreadExit:
    """Stands in a thread's locals: goes when the thread ends."""

    def __init__(self, handle: ThreadState, handles: set[ThreadState]) -> None:
        self._handle = handle
        self._handles = handles

    def __del__(self) -> None:
        self._handles.discard(self._handle)


class _ThreadLocal(threading.local):
    handle: ThreadState
    owner: _ThreadExit


class Opening:
    """What this process knows of the environment at one LOCATION, and of its threads inside it.

    `_opening` (reentrant, because of signal handlers) guards opening, closing and `_handles`;
    `env` is replaced whole. `_writer` is written by who holds LMDB's write lock.
    """

    reference_bits: ReferenceBits
    """Those of the latest env, which may have been closed: a mark there does no harm."""

    def __init__(self, location: Path, limits: SizeLimits, timeout_s: float) -> None:
        self.limits = limits
        self.directory = EnvironmentDirectory(location, limits, timeout_s)
        self.env: OpenEnvironment | None = None
        self.check_at_s = 0.0
        self._opening = threading.RLock()
        self._handles: set[ThreadState] = set()
        self.here = _ThreadLocal()
        self._writer: tuple[int, Transaction] | None = None

    def __repr__(self) -> str:
        state = "open" if self.env is not None else "closed"
        return (
            f"<{type(self).__name__} {self.directory.path} {state}, {len(self._handles)} threads>"
        )

    def handle(self) -> ThreadState:
        """Return this thread's handle."""
        try:
            return self.here.handle
        except AttributeError:
            handle = ThreadState()
            with self._opening:
                self._handles.add(handle)
            self.here.handle = handle
            self.here.owner = _ThreadExit(handle, self._handles)
            return handle

    # -- the files ---------------------------------------------------------------------------

    def end_request(self) -> None:
        """Have the next operation look at the directory."""
        self.check_at_s = 0.0

    def _is_there(self, env: OpenEnvironment, now: float) -> bool:
        """Look at the place while inside; return whether the env's environment is there."""
        if identity_of(env.data) != env.identity:
            return False
        self.check_at_s = now + CHECK_INTERVAL_S
        return True

    def _looked(self) -> OpenEnvironment:
        """Return the env of the environment that is at the place now.

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

    def _found(self) -> OpenEnvironment:
        with self._opening:
            env = self.env
            if env is not None:
                if identity_of(env.data) == env.identity and not env.flags[RETIRED]:
                    self.check_at_s = clock.boot_s() + CHECK_INTERVAL_S
                    return env
                self._drop(env)
            env = self._opened()
            env.lmdb.reader_check()
            self.check_at_s = clock.boot_s() + CHECK_INTERVAL_S
            self.reference_bits = env.reference_bits
            self.env = env
            return env

    def _opened(self) -> OpenEnvironment:
        """Open the environment that is at the place, or a new one."""
        found = self.directory.whole()
        if found is not None:
            # Without the lock: the parent of a fork in a signal handler may hold it, and wait for us.
            with contextlib.suppress(OSError, lmdb.Error):  # met again below
                return OpenEnvironment(*found)
        with self.directory.locked():
            path, limits = self.directory.environment()
            try:
                return OpenEnvironment(path, limits)
            except _DAMAGE as exc:
                self.directory.set_environment_aside(path, str(exc))
                return OpenEnvironment(*self.directory.environment())

    def _drop(self, env: OpenEnvironment | None) -> None:
        """Close a env once nobody is inside it, unless that has been done."""
        with self._opening:
            if env is not None and self.env is env:
                self.env = None
                self._wait_until_nobody_is_inside()
                env.lmdb.close()

    def _wait_until_nobody_is_inside(self) -> None:
        """Wait for the others. Whatever this thread is inside of, a signal handler called us."""
        me = threading.get_ident()
        for handle in list(self._handles):
            while handle.inside and handle.thread != me:
                time.sleep(_PAUSE_S)

    def _mended(self, env: OpenEnvironment | None, error: Exception) -> bool:
        """Return whether the operation, which had no effect, is worth another attempt."""
        if isinstance(error, _DAMAGE) and env is not None:
            with self._opening, self.directory.locked():
                if identity_of(env.data) == env.identity:
                    self.directory.set_environment_aside(env.path, str(error))
            self._drop(env)
            return True
        if isinstance(error, lmdb.BadRslotError) or (
            isinstance(error, lmdb.Error) and error.code == errno.EBUSY
        ):
            # Busy: we are in a signal handler, inside a write of this thread. Closing rolls it back.
            self._drop(env)
            return True
        if isinstance(error, lmdb.ReadersFullError) and env is not None:
            return env.lmdb.reader_check() > 0
        if isinstance(error, lmdb.Error):
            return error.code == 0  # an object that a fork, or a handler, closed
        return isinstance(error, FileNotFoundError)

    def _roll_back_what_is_under_us(self) -> None:
        """End the write transaction that this thread was in when a signal handler came."""
        if self._writer is not None and self._writer[0] == threading.get_ident():
            self._writer[1].abort()

    def give_up(self) -> bool:
        """Remove all that is stored, for every process; return whether it was not new by then."""
        env = self.env
        with self._opening, self.directory.locked():
            if env is None or identity_of(env.data) != env.identity:
                return False  # another process was faster
            self.directory.remove_all()
            return True

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the environment; the next operation opens it again."""
        self._drop(self.env)

    def before_fork(self) -> None:
        """Wait until no thread is inside, and close; nobody opens until the fork is over.

        Python forks whatever this raises. So what a signal handler raises is raised at the end.
        """
        self._opening.acquire()
        interruption: BaseException | None = None
        env, self.env = self.env, None
        while env is not None:
            try:
                self._wait_until_nobody_is_inside()
                env.lmdb.close()
                env = None
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
        self.directory.unlock()
        self._opening.release()

    def forget_watches(self) -> None:
        """Do nothing: stores wait, not this."""
