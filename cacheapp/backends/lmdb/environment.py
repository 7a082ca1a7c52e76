"""One LMDB environment per process and LOCATION: opened when first used, and closed for forks.

Invariants:

- A process opens the files of an environment at most once at a time, because LMDB's locks belong to
  process and file. All aliases of one LOCATION share an `Environment`; the registry has one for
  each.
- No environment is open while the process forks: a child that inherited one would free its
  parent's reader slots by closing it. `before_fork` takes `_opening`, sets `current` to `None` so
  that no thread enters, and waits until no thread is inside. Both processes open a new one when
  they next need it.
- A thread is *inside* from before it reads `current` until its transaction has ended. It
  increments `ThreadState.inside` before it reads `current`, and a fork reads `inside` after it has
  cleared `current`: so at least one of them sees the other. A thread that is inside never waits for
  `_opening`.
- A transaction calls nothing but LMDB, and no result points into the map: values are copied out.

A signal handler runs between two bytecodes of the main thread, perhaps inside an operation. If it
writes or forks, the interrupted transaction is rolled back. The operation finds that out at its
next step; as no commit can have run, it starts again.
"""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.directory import EnvironmentDirectory
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.reference_bits import RETIRED, WRITER_ACTIVE, ReferenceBits
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.errors import StoreUnavailable

CHECK_INTERVAL_S = 1.0
_ATTEMPTS = 8
_PAUSE_S = 0.0002
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
ResultT = TypeVar("ResultT")


class CheckRequired(Exception):
    """The directory must be checked before the open environment is used."""


class ThreadState:
    """How many operations a thread is inside: more than one in a signal handler."""

    __slots__ = ("ident", "inside")

    def __init__(self) -> None:
        self.inside = 0
        self.ident = threading.get_ident()


class _ThreadExit:
    """A thread-local object whose finaliser forgets a thread that has ended."""

    def __init__(self, thread: ThreadState, threads: set[ThreadState]) -> None:
        self._thread = thread
        self._threads = threads

    def __del__(self) -> None:
        self._threads.discard(self._thread)


class _ThreadLocal(threading.local):
    thread: ThreadState
    exit: _ThreadExit


class Environment:
    """The environment at one LOCATION, for all threads and aliases of this process.

    `_opening` (reentrant, because of signal handlers) guards opening, closing and `_threads`;
    `current` is replaced whole. Only the holder of LMDB's write lock writes `_writer`.
    """

    reference_bits: ReferenceBits
    """Those of the latest environment. If it is closed, setting a bit there does no harm."""

    def __init__(self, location: Path, limits: SizeLimits, timeout_s: float) -> None:
        self.limits = limits
        self.directory = EnvironmentDirectory(location, limits, timeout_s)
        self.current: OpenEnvironment | None = None
        self.check_at_s = 0.0
        self._opening = threading.RLock()
        self._threads: set[ThreadState] = set()
        self._local = _ThreadLocal()
        self._writer: tuple[int, Transaction] | None = None

    def __repr__(self) -> str:
        state = "open" if self.current is not None else "closed"
        return (
            f"<{type(self).__name__} {self.directory.path} {state}, {len(self._threads)} threads>"
        )

    # -- one operation -----------------------------------------------------------------------

    def get(self, name: bytes, now: float) -> bytes | None:
        """Return the stored entry of a name; `now` is `clock.boot_s()`. Every hit takes this path."""
        try:
            thread = self._local.thread
        except AttributeError:
            thread = self._thread()
        thread.inside += 1
        try:
            env = self.current
            if env is not None and (now < self.check_at_s or self._is_at_its_path(env, now)):
                found = env.begin(env.entries).get(name)
                if not env.flags[RETIRED]:
                    return found
        except (lmdb.Error, OSError) as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            thread.inside -= 1
        return self._run_with_recovery(_get, (name,), writing=False)

    def read(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(env, transaction, *args)`, run in one snapshot."""
        thread = self._thread()
        thread.inside += 1
        try:
            env = self.current
            if env is not None and clock.boot_s() < self.check_at_s:
                found = self._run_in_snapshot(env, work, args)
                if not env.flags[RETIRED]:
                    return found
        except lmdb.Error as exc:
            if is_interruption(exc):
                raise
        finally:
            thread.inside -= 1
        return self._run_with_recovery(work, args, writing=False)

    def write(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(env, transaction, *args)`, run in one write transaction.

        Raises `lmdb.MapFullError` if there are not enough free pages.
        """
        try:
            thread = self._local.thread
        except AttributeError:
            thread = self._thread()
        thread.inside += 1
        try:
            env = self.current
            if env is not None:
                return self._run_in_write(env, thread.ident, work, args)
        except lmdb.MapFullError:
            raise
        except (CheckRequired, lmdb.Error) as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            thread.inside -= 1
        return self._run_with_recovery(work, args, writing=True)

    @staticmethod
    def _run_in_snapshot(
        env: OpenEnvironment, work: Callable[..., ResultT], args: tuple[Any, ...]
    ) -> ResultT:
        transaction = env.begin()
        try:
            return work(env, transaction, *args)
        finally:
            transaction.abort()

    def _run_in_write(
        self,
        env: OpenEnvironment,
        thread: int,
        work: Callable[..., ResultT],
        args: tuple[Any, ...],
    ) -> ResultT:
        transaction = env.begin(None, None, True)  # noqa: FBT003 (LMDB's own order)
        self._writer = (thread, transaction)
        flags = env.flags
        try:
            env.now = now = clock.boot_s()  # not earlier: `begin` may have waited for the lock
            if now >= self.check_at_s or flags[RETIRED]:
                raise CheckRequired  # noqa: TRY301 (on the path of every write)
            flags[WRITER_ACTIVE] = 1
            result = work(env, transaction, *args)
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise
        finally:
            flags[WRITER_ACTIVE] = 0
        return result

    def _run_with_recovery(
        self, work: Callable[..., ResultT], args: tuple[Any, ...], *, writing: bool
    ) -> ResultT:
        """Check the directory and run the work; repeat it after errors that had no effect."""
        thread = self._thread()
        failures = 0
        while failures < _ATTEMPTS:
            env = None
            try:
                env = self._checked()
                thread.inside += 1
                try:
                    if self.current is not env:
                        continue  # a fork or another thread closed it: not a failed attempt
                    if writing:
                        return self._run_in_write(env, thread.ident, work, args)
                    found = self._run_in_snapshot(env, work, args)
                    if not env.flags[RETIRED]:
                        return found
                finally:
                    thread.inside -= 1
                self._close(env)
            except CheckRequired:
                pass  # the next iteration checks
            except lmdb.MapFullError:
                raise
            except (lmdb.Error, OSError) as exc:
                if is_interruption(exc):
                    raise
                failures += 1
                if failures == _ATTEMPTS or not self._recover(env, exc):
                    raise StoreUnavailable(
                        f"{self.directory.path}: {exc}; nothing was done"
                    ) from exc
        raise StoreUnavailable(
            f"{self.directory.path}: other processes keep replacing it; nothing was done"
        )

    def is_busy(self) -> bool:
        """Return True if a write is in progress, or the environment is closed. A hint."""
        env = self.current
        return env is None or env.flags[WRITER_ACTIVE] != 0

    def _thread(self) -> ThreadState:
        """Return the state of this thread."""
        try:
            return self._local.thread
        except AttributeError:
            thread = ThreadState()
            with self._opening:
                self._threads.add(thread)
            self._local.thread = thread
            self._local.exit = _ThreadExit(thread, self._threads)
            return thread

    # -- open, check, recover ----------------------------------------------------------------

    def end_request(self) -> None:
        """Make the next operation check the directory."""
        self.check_at_s = 0.0

    def _is_at_its_path(self, env: OpenEnvironment, now: float) -> bool:
        """Check from inside whether the open environment is still the one at its path."""
        if identity_of(env.data) != env.identity:
            return False
        self.check_at_s = now + CHECK_INTERVAL_S
        return True

    def _checked(self) -> OpenEnvironment:
        """Return the environment that is in the directory now, opened.

        In a signal handler, this thread may be inside already. The thread that holds `_opening`
        must not wait for the interrupted operation: its write is rolled back, and it does not count
        as inside for now.
        """
        thread = self._thread()
        depth, thread.inside = thread.inside, 0
        if depth:
            self._abort_interrupted_write()
        try:
            return self._ensure_open()
        finally:
            thread.inside = depth

    def _ensure_open(self) -> OpenEnvironment:
        with self._opening:
            env = self.current
            if env is not None:
                if identity_of(env.data) == env.identity and not env.flags[RETIRED]:
                    self.check_at_s = clock.boot_s() + CHECK_INTERVAL_S
                    return env
                self._close(env)
            env = self._open()
            env.lmdb.reader_check()
            self.check_at_s = clock.boot_s() + CHECK_INTERVAL_S
            self.reference_bits = env.reference_bits
            self.current = env
            return env

    def _open(self) -> OpenEnvironment:
        """Open the environment in the directory, or a new one."""
        found = self.directory.find_usable()
        if found is not None:
            # Without the lock: it may be held by the parent of a fork in a signal handler, which
            # may wait for this process.
            with suppress_failure(OSError, lmdb.Error):  # raised again below
                return OpenEnvironment(*found)
        with self.directory.locked():
            path, limits = self.directory.find_or_create()
            try:
                return OpenEnvironment(path, limits)
            except _DAMAGE as exc:
                self.directory.set_aside(path, str(exc))
                return OpenEnvironment(*self.directory.find_or_create())

    def _close(self, env: OpenEnvironment | None) -> None:
        """Close an environment when no other thread is inside it, unless it is closed already."""
        with self._opening:
            if env is not None and self.current is env:
                self.current = None
                self._wait_for_other_threads()
                env.lmdb.close()

    def _wait_for_other_threads(self) -> None:
        """Wait until no other thread is inside. This one may be, if a signal handler interrupted it."""
        me = threading.get_ident()
        for thread in list(self._threads):
            while thread.inside and thread.ident != me:
                time.sleep(_PAUSE_S)

    def _recover(self, env: OpenEnvironment | None, error: Exception) -> bool:
        """Return True if the operation, which had no effect, is worth another attempt."""
        if isinstance(error, _DAMAGE) and env is not None:
            with self._opening, self.directory.locked():
                if identity_of(env.data) == env.identity:
                    self.directory.set_aside(env.path, str(error))
            self._close(env)
            return True
        if isinstance(error, lmdb.BadRslotError) or (
            isinstance(error, lmdb.Error) and error.code == errno.EBUSY
        ):
            # This is a signal handler, inside a write of this thread. Closing rolls that back.
            self._close(env)
            return True
        if isinstance(error, lmdb.ReadersFullError) and env is not None:
            return env.lmdb.reader_check() > 0
        if isinstance(error, lmdb.Error):
            return error.code == 0  # an object that a fork, or a signal handler, closed
        return isinstance(error, FileNotFoundError)

    def _abort_interrupted_write(self) -> None:
        """Roll back the write transaction of this thread that a signal handler interrupted."""
        if self._writer is not None and self._writer[0] == threading.get_ident():
            self._writer[1].abort()

    def discard_all(self) -> bool:
        """Remove all entries, for every process; return False if another process just did."""
        env = self.current
        with self._opening, self.directory.locked():
            if env is None or identity_of(env.data) != env.identity:
                return False
            self.directory.remove_all()
            return True

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the environment; the next operation opens it again."""
        self._close(self.current)

    def before_fork(self) -> None:
        """Wait until no other thread is inside, and close; no thread opens during the fork.

        Python forks even if this raises. So an exception of a signal handler is raised at the end.
        """
        self._opening.acquire()
        interruption: BaseException | None = None
        env, self.current = self.current, None
        while env is not None:
            try:
                self._wait_for_other_threads()
                env.lmdb.close()
                env = None
            except BaseException as exc:  # noqa: BLE001
                interruption = exc
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Let threads open the environment again."""
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """Forget the threads that exist only in the parent, and its lock on the directory."""
        me = threading.get_ident()
        self._threads = {thread for thread in self._threads if thread.ident == me}
        self.directory.unlock()
        self._opening.release()

    def reset_watches(self) -> None:
        """Do nothing: only stores have watches."""


def _get(env: OpenEnvironment, transaction: Transaction, name: bytes) -> bytes | None:
    return transaction.get(name, None, env.entries)
