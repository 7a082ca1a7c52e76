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

from collections.abc import Callable
from typing import Any, TypeVar

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.opening import Opening
from cacheapp.backends.lmdb.reference_bits import BUSY, RETIRED
from cacheapp.backends.lmdb.session import Session, Transaction
from cacheapp.errors import StoreUnavailable

_ATTEMPTS = 8
ResultT = TypeVar("ResultT")


class LookAgain(Exception):
    """The session must not be used before somebody has looked at the place."""


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


def _get(session: Session, transaction: Transaction, name: bytes) -> bytes | None:
    return transaction.get(name, None, session.entries)
