"""One LMDB environment per process and LOCATION: opened when first used, and closed for forks.

Invariants:

- A process opens the files of an environment at most once at a time, because LMDB's locks belong to
  process and file. All aliases of one LOCATION share an `Environment`; the registry has one for
  each.
- No environment is open while the process forks: a child that inherited one would free its
  parent's reader slots by closing it. `before_fork` takes `_opening`, sets `current` to `None` so
  that no thread enters, and waits until no thread is inside. Both processes open a new one when
  they next need it.
- A thread is *inside* from before it reads `current` until its transaction has ended, and marks
  itself (`thread_marks`). A thread that is inside never waits for `_opening`.
- A transaction calls nothing but LMDB, and no result points into the map: values are copied out.

A signal handler or a finaliser runs between two bytecodes of a thread, perhaps inside an operation
of that thread. There it may read from an environment that is open. Whatever would have to wait for
the interrupted operation (a write, or opening the environment) raises `ReentrantCall` at once. A
fork in a handler closes the environment, which rolls back the interrupted transaction; the
operation finds that out at its next step, and starts again.
"""

import errno
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.directory import EnvironmentDirectory
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import (
    OpenEnvironment,
    Transaction,
    read_entry,
    read_with_meta,
    with_arguments,
)
from cacheapp.backends.lmdb.reference_bits import RETIRED, WRITER_ACTIVE, ReferenceBits
from cacheapp.backends.lmdb.thread_marks import ThreadMarks, ThreadState, operation
from cacheapp.backends.local import forks
from cacheapp.backends.local.descriptors import are_intact
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.pid_namespace import Claim
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
_ATTEMPTS = 8
_abandoned: list[OpenEnvironment | ReferenceBits] = []
"""What must stay open until the process ends."""
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
_UNUSABLE = (*_DAMAGE, lmdb.NotFoundError)
"""What opening finds: LMDB creates a data file that has just been removed, without our databases."""
ResultT = TypeVar("ResultT")


class CheckRequired(Exception):
    """The directory must be checked before the open environment is used."""


class Environment:
    """The environment at one LOCATION, for all threads and aliases of this process.

    `_opening` guards opening, closing and the set of threads; `current` is replaced whole. What this
    process has open is `_unclosed`, from before it becomes `current` until it is closed: LMDB opens a
    file once in a process, so an environment that an interruption left to the frames of a kept
    exception would keep it from opening again.
    `_check_at` is the time of the next check of the directory: in a page that is zero in a child
    that C code forked, which therefore checks first, and finds that it is another process.
    """

    reference_bits: ReferenceBits
    """Those of the latest environment. If it is closed, setting a bit there does no harm."""

    def __init__(self, location: Path, limits: SizeLimits, timeout_s: float) -> None:
        self.limits = limits
        self.max_entry_bytes = limits.max_entry_bytes
        """That of the latest environment, which may be smaller than the limits."""
        self.directory = EnvironmentDirectory(location, limits, timeout_s)
        self.current: OpenEnvironment | None = None
        self._unclosed: OpenEnvironment | None = None
        self._check_at = forks.wiped_page()
        self._opening = forks.ForkLock()
        self._forks = 0
        self._marks = ThreadMarks(self._opening, self.directory.path)
        self._local = self._marks.local  # one look-up less in each operation

    def __repr__(self) -> str:
        state = "open" if self.current is not None else "closed"
        return f"<{type(self).__name__} {self.directory.path} {state}, {len(self._marks)} threads>"

    # -- one operation -----------------------------------------------------------------------

    @operation
    def get(self, name: bytes, now: float) -> bytes | None:
        """Return the stored entry of a name; `now` is `clock.boot_s()`. Every hit takes this path."""
        try:
            thread = self._local.thread
        except AttributeError:
            thread = self._marks.own()
        thread.inside += 1
        try:
            env = self.current
            if env is not None and (now < self._check_at[0] or self._is_at_its_path(env, now)):
                found = env.begin(env.entries).get(name)
                if not env.flags[RETIRED]:
                    return found
        except (lmdb.Error, OSError) as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            thread.inside -= 1
        return self._run_with_recovery(read_entry, (name,), writing=False)

    @operation
    def get_with_meta(
        self, meta_key: bytes, name: bytes, now: float
    ) -> tuple[bytes | None, bytes | None]:
        """Return a record of the environment itself and the stored entry of a name, of one snapshot."""
        try:
            thread = self._local.thread
        except AttributeError:
            thread = self._marks.own()
        thread.inside += 1
        try:
            env = self.current
            if env is not None and (now < self._check_at[0] or self._is_at_its_path(env, now)):
                get: Any = env.begin(env.entries).get
                found = get(meta_key, None, env.meta), get(name)
                if not env.flags[RETIRED]:
                    return found
        except (lmdb.Error, OSError) as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            get = None  # ends the snapshot: an exception kept anywhere may refer to this frame
            thread.inside -= 1
        return self._run_with_recovery(read_with_meta, (meta_key, name), writing=False)

    @operation
    def read(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(env, transaction, *args)`, run in one snapshot."""
        thread = self._marks.own()
        thread.inside += 1
        try:
            env = self.current
            if env is not None and clock.boot_s() < self._check_at[0]:
                found = self._run_in_snapshot(env, work, args)
                if not env.flags[RETIRED]:
                    return found
        except lmdb.Error as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            thread.inside -= 1
        return self._run_with_recovery(work, args, writing=False)

    def write(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(env, transaction, *args)`, run in one write transaction.

        Raises `lmdb.MapFullError` if there are not enough free pages.
        """
        result: ResultT = self.transact(with_arguments, (work, args))
        return result

    @operation
    def transact(
        self, work: Callable[[OpenEnvironment, Transaction, Any], ResultT], item: Any
    ) -> ResultT:
        """Return `work(env, transaction, item)`; see `write`, which takes any number of arguments.

        The interpreter calls a function with a fixed number of arguments in half of the time.
        """
        try:
            thread = self._local.thread
        except AttributeError:
            thread = self._marks.own()
        if thread.inside or thread.working:
            self._marks.refuse_reentrance(thread)
        thread.inside = 1
        try:
            env = self.current
            if env is not None and self._check_at[0]:
                return self._run_in_write(env, work, item)
        except lmdb.MapFullError:
            raise
        except (CheckRequired, lmdb.Error) as exc:
            if is_interruption(exc):
                raise
            # The retry below reports it.
        finally:
            thread.inside = 0
        return self._run_with_recovery(work, (item,), writing=True)

    @staticmethod
    def _run_in_snapshot(
        env: OpenEnvironment, work: Callable[..., ResultT], args: tuple[Any, ...]
    ) -> ResultT:
        with env.begin() as transaction:
            return work(env, transaction, *args)

    def _run_in_write(
        self, env: OpenEnvironment, work: Callable[..., ResultT], item: Any
    ) -> ResultT:
        # A transaction ends here, in one step that no handler interrupts, and not when its last
        # reference goes: an exception kept anywhere may refer to it, and to the lock of writers.
        flags = env.flags
        try:
            with env.begin(env.entries, None, True) as transaction:  # noqa: FBT003 (LMDB's own order)
                env.now = now = clock.boot_s()  # not earlier: `begin` may have waited for the lock
                if (
                    now >= self._check_at[0]
                    or flags[RETIRED]
                    # Without a map, LMDB writes to the number of a descriptor.
                    or (env.writes_to_descriptors and not env.has_its_descriptors())
                ):
                    raise CheckRequired
                flags[WRITER_ACTIVE] = 1
                result = work(env, transaction, item)
                transaction.commit()  # raises if a fork has closed it, where `__exit__` is silent
        finally:
            flags[WRITER_ACTIVE] = 0
        return result

    def _run_with_recovery(
        self, work: Callable[..., ResultT], args: tuple[Any, ...], *, writing: bool
    ) -> ResultT:
        """Check the directory and run the work; repeat it after errors that had no effect."""
        thread = self._marks.own()
        if thread.inside or thread.working:
            self._marks.refuse_reentrance(thread)
        thread.working = True
        try:
            return self._attempts(thread, work, args, writing=writing)
        finally:
            thread.working = False

    def _attempts(
        self,
        thread: ThreadState,
        work: Callable[..., ResultT],
        args: tuple[Any, ...],
        *,
        writing: bool,
    ) -> ResultT:
        failures = 0
        while failures < _ATTEMPTS:
            env = None
            try:
                env = self._ensure_open()
                thread.inside = 1
                try:
                    if self.current is not env:
                        continue  # a fork or another thread closed it: not a failed attempt
                    if writing:
                        return self._run_in_write(env, work, *args)
                    found = self._run_in_snapshot(env, work, args)
                    if not env.flags[RETIRED]:
                        return found
                finally:
                    thread.inside = 0
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

    # -- open, check, recover ----------------------------------------------------------------

    def end_request(self) -> None:
        """Make the next operation check the directory."""
        self._check_at[0] = 0.0

    def _is_at_its_path(self, env: OpenEnvironment, now: float) -> bool:
        """Check from inside whether the open environment is still the one at its path."""
        if not forks.mark[0] or not env.is_at_its_path():
            return False
        self._check_at[0] = now + CHECK_INTERVAL_S
        return True

    def _ensure_open(self) -> OpenEnvironment:
        """Return the environment that is in the directory now, opened."""
        if not forks.mark[0]:
            forks.recover()
        with self._opening.lock:
            env = self.current
            if env is not None:
                if env.is_at_its_path() and not env.flags[RETIRED]:
                    self._check_at[0] = clock.boot_s() + CHECK_INTERVAL_S
                    return env
                self._close(env)
            return self._reopen()

    def _reopen(self) -> OpenEnvironment:
        self._finish_closing()
        forks_before = self._forks
        self._unclosed = env = self._open()  # closed by the next attempt, if what follows fails
        env.lmdb.reader_check()
        self._set_reference_bits(env.reference_bits)
        self.max_entry_bytes = env.limits.max_entry_bytes
        if self._forks != forks_before:  # a signal handler forked: both processes have it open
            raise CheckRequired
        self.current = env
        self._check_at[0] = clock.boot_s() + CHECK_INTERVAL_S
        return env

    def _set_reference_bits(self, bits: ReferenceBits) -> None:
        old = getattr(self, "reference_bits", None)
        if old is not None and not are_intact(old.descriptors):
            _abandoned.append(old)  # its end would close the file of others that has its number
        self.reference_bits = bits

    def _open(self) -> OpenEnvironment:
        """Open the environment in the directory, or a new one."""
        self.directory.prepare()
        claim = Claim(self.directory.path)
        try:
            return self._opened(claim)
        except BaseException:
            claim.release()
            raise

    def _opened(self, claim: Claim) -> OpenEnvironment:
        found = self.directory.find_usable()
        if found is not None:
            # Without the lock: it may be held by the parent of a fork in a signal handler, which
            # may wait for this process.
            with suppress_failure(OSError, lmdb.Error):  # raised again below
                return OpenEnvironment(*found, claim)
        with self.directory.locked():
            path, limits = self.directory.find_or_create(claim)
            try:
                return OpenEnvironment(path, limits, claim)
            except _UNUSABLE as exc:
                self.directory.set_aside(path, str(exc))
                return OpenEnvironment(*self.directory.find_or_create(claim), claim)

    def _close(self, env: OpenEnvironment | None) -> None:
        """Close an environment when no other thread is inside it, unless it is closed already."""
        with self._opening.lock:
            if self.current is env:
                self.current = None
                self._finish_closing()

    def _finish_closing(self, within_s: float = math.inf) -> bool:
        """Close what is open, if anything is, when no thread is inside; return False if that takes too long.

        Call it under `_opening`, while `current` is `None`.
        """
        env = self._unclosed
        if env is not None:
            if not self._marks.wait_for_others(within_s):
                return False
            env.close()
            if self._unclosed is env:  # else a signal handler closed it too, and opened another
                self._unclosed = None
        return True

    def _recover(self, env: OpenEnvironment | None, error: Exception) -> bool:
        """Return True if the operation, which had no effect, is worth another attempt."""
        if isinstance(error, _DAMAGE) and env is not None:
            self._in_directory(env, lambda: self.directory.set_aside(env.path, str(error)))
            self._close(env)
            return True
        if isinstance(error, lmdb.ReadersFullError) and env is not None:
            return env.lmdb.reader_check() > 0
        if isinstance(error, lmdb.Error):
            # Another process has just moved the files (see `growth`), or removed them while they were
            # opened, or a fork in a signal handler closed an object.
            return isinstance(error, lmdb.MapResizedError) or error.code in {0, errno.ENOENT}
        return isinstance(error, FileNotFoundError)

    def discard_all(self) -> bool:
        """Remove all entries, for every process; return False if another process just did.

        The new environment may be smaller, as other processes may hold the blocks of the old one.
        """
        env = self.current
        return env is not None and self._in_directory(env, self.directory.replace_all)

    def _in_directory(self, env: OpenEnvironment, change: Callable[[], None]) -> bool:
        """Change the directory under its lock; return False if `env` is not the one in it."""
        try:
            with self._opening.lock, self.directory.locked():
                if identity_of(env.data) != env.identity:
                    return False
                change()
                return True
        except (lmdb.Error, OSError) as exc:
            if is_interruption(exc):
                raise
            raise StoreUnavailable(f"{self.directory.path}: {exc}; nothing was done") from exc

    # -- the process -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the environment; the next operation opens it again."""
        if not forks.mark[0]:  # it is the parent's: a child of C code that only exits comes here
            forks.recover()
        self._close(self.current)

    def close_at_exit(self, within_s: float) -> None:
        """Close it, unless threads remain inside: a stopped process may hold the lock they wait for."""
        if self._opening.lock.acquire(timeout=within_s):
            try:
                self.current = None
                if not self._finish_closing(within_s) and self._unclosed is not None:
                    _abandoned.append(self._unclosed)
            finally:
                self._opening.lock.release()

    def before_fork(self) -> None:
        """Wait until no other thread is inside, and close; no thread opens during the fork.

        Python forks even if this raises. So an exception of a signal handler is raised at the end.
        """
        interruption: BaseException | None = None
        if not forks.mark[0]:
            forks.recover()  # a fork in a child that C code forked
        try:
            self._opening.before()
        except BaseException as exc:  # noqa: BLE001
            interruption = exc
        self._forks += 1
        while self._unclosed is not None:
            try:
                self._close(self.current)
            except BaseException as exc:  # noqa: BLE001
                interruption = exc
                if isinstance(exc, Exception) and not is_interruption(exc):
                    break  # no descriptor is free for `parked`: both processes close it later
        if interruption is not None:
            raise interruption

    def after_fork_in_parent(self) -> None:
        """Let threads open the environment again."""
        self._opening.in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the threads that exist only in the parent, and its lock on the directory."""
        used = self._marks.forget_others()
        self._check_at[0] = 0.0
        self._forks += 1
        self._opening.in_child()
        self.directory.unlock()
        env, self.current, self._unclosed = self._unclosed, None, None
        if env is not None:  # C code forked: `before_fork` did not run
            self._drop_inherited(env, used=used)

    def _drop_inherited(self, env: OpenEnvironment, *, used: bool) -> None:
        """Let the next operation close the parent's environment, if that has no effect on the parent."""
        _abandoned.append(env)  # also after an interruption
        if not used and env.detach_from_parent():
            self._unclosed = env
            _abandoned.remove(env)
            return
        # Closing it waits for operations that go on only in the parent.
        logger.warning(
            "%s: this process was forked by C code during a cache operation of another thread, "
            "and cannot use the cache; fork before the first use (uWSGI: lazy-apps)",
            self.directory.path,
            extra={"event": "cache_fork_unusable"},
        )

    def reset_watches(self) -> None:
        """Do nothing: only stores have watches."""
