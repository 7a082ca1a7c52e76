"""One LMDB environment per process and LOCATION: opened late, closed for forks, found again.

Invariants:

- A process opens the files of an environment at most once at a time (LMDB's locks belong to process
  and file). All aliases of one LOCATION share an `Environment`; the registry has one for each.
- No environment is open while the process forks: a child that inherited one would free its
  parent's reader slots when it closed it. `before_fork` takes `_opening`, closes the env to
  newcomers and waits until no thread is inside one. Both sides open anew when they next need to.
- A thread is *inside* from before it reads `env` until its transaction has ended. It writes
  that down before it looks, and the fork looks after it has taken the env away: one of them
  sees the other. Nobody waits for `_opening` while inside.
- A transaction is free of calls to anything but LMDB, and holds nothing that leads into the map:
  values are copied out.

A signal handler runs between two bytecodes of the main thread, perhaps inside an operation. If it
writes or forks, the transaction under it is rolled back. The operation meets that at its next step;
as no commit can have run, it begins again.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.opening import Opening
from cacheapp.backends.lmdb.reference_bits import RETIRED, WRITER_ACTIVE
from cacheapp.errors import StoreUnavailable

_ATTEMPTS = 8
ResultT = TypeVar("ResultT")


class CheckRequired(Exception):
    """The env must not be used before somebody has looked at the directory."""


class Environment(Opening):
    """The environment at one LOCATION, for all threads and aliases of this process."""

    def get(self, name: bytes, now: float) -> bytes | None:
        """Return what stands at a key of the entries; `now` is `boot_s()`. The path of every hit."""
        try:
            handle = self.here.handle
        except AttributeError:
            handle = self.handle()
        handle.inside += 1
        try:
            env = self.env
            if env is not None and (now < self.check_at_s or self._is_there(env, now)):
                found = env.begin(env.entries).get(name)
                if not env.flags[RETIRED]:
                    return found
        except (lmdb.Error, OSError):
            pass  # what it was shows when it is done again, with care
        finally:
            handle.inside -= 1
        return self._run(_get, (name,), writing=False)

    def read(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Return `work(env, transaction, *args)` of one snapshot."""
        handle = self.handle()
        handle.inside += 1
        try:
            env = self.env
            if env is not None and clock.boot_s() < self.check_at_s:
                found = self._seen(env, work, args)
                if not env.flags[RETIRED]:
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
            env = self.env
            if env is not None:
                return self._written(env, handle.thread, work, args)
        except lmdb.MapFullError:
            raise
        except (CheckRequired, lmdb.Error):
            pass  # what it was shows when it is done again, with care
        finally:
            handle.inside -= 1
        return self._run(work, args, writing=True)

    def _written(
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
            env.now = now = clock.boot_s()  # not before: the lock may have been waited for
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

    def _run(
        self, work: Callable[..., ResultT], args: tuple[Any, ...], *, writing: bool
    ) -> ResultT:
        """Run it with care, and again after what went wrong was mended: never twice with effect."""
        handle = self.handle()
        failures = 0
        while failures < _ATTEMPTS:
            env = None
            try:
                env = self._looked()
                handle.inside += 1
                try:
                    if self.env is not env:
                        continue  # a fork, or another thread: no failed attempt
                    if writing:
                        return self._written(env, handle.thread, work, args)
                    found = self._seen(env, work, args)
                    if not env.flags[RETIRED]:
                        return found
                finally:
                    handle.inside -= 1
                self._drop(env)
            except CheckRequired:
                pass  # the look that comes finds why
            except lmdb.MapFullError:
                raise
            except (lmdb.Error, OSError) as exc:
                failures += 1
                if failures == _ATTEMPTS or not self._mended(env, exc):
                    raise StoreUnavailable(
                        f"{self.directory.path}: {exc}; nothing was done"
                    ) from exc
        raise StoreUnavailable(f"{self.directory.path}: keeps changing; nothing was done")

    @staticmethod
    def _seen(env: OpenEnvironment, work: Callable[..., ResultT], args: tuple[Any, ...]) -> ResultT:
        transaction = env.begin()
        try:
            return work(env, transaction, *args)
        finally:
            transaction.abort()

    def is_busy(self) -> bool:
        """Return whether a writer is at work, as far as can be told without waiting."""
        env = self.env
        return env is None or env.flags[WRITER_ACTIVE] != 0


def _get(env: OpenEnvironment, transaction: Transaction, name: bytes) -> bytes | None:
    return transaction.get(name, None, env.entries)
