"""Marks the threads that are inside an operation of one LMDB environment, and waits for them.

Invariants:

- A thread is *inside* from before it reads `Environment.current` until its transaction has ended.
  It marks that in `ThreadState.inside` before it reads `current`, and a fork reads `inside` after
  it has cleared `current`: so at least one of them sees the other. A thread that is inside never
  waits for the lock of opening and closing.
- An operation marks its thread before it acquires anything, and removes the mark last. So a signal
  handler or a finaliser that finds no mark interrupts no operation of its thread.
- A mark is a hint, and the thread's stack decides (`_is_in_operation`): an exception that a handler
  raises can only leave a mark too many, at a bytecode between the mark and the `try` that removes
  it.
"""

import math
import threading
import time
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local import forks
from cacheapp.backends.local.running_calls import RunningCalls
from cacheapp.errors import ReentrantCall

_PAUSE_S = 0.0002
_PAUSES_PER_LOOK = 256
_operations = RunningCalls()
operation = _operations.register
"""Registers a function that marks its thread."""


class ThreadState:
    """Marks of one thread. `inside`: how many operations use the open environment, see above.

    `working`: whether an operation checks, opens or retries, and may wait for the lock of opening.
    """

    __slots__ = ("ident", "inside", "working")

    def __init__(self) -> None:
        self.inside = 0
        self.working = False
        self.ident = threading.get_ident()


class _ThreadExit:
    """A thread-local object: its finaliser forgets a thread that has ended."""

    def __init__(self, thread: ThreadState, threads: set[ThreadState]) -> None:
        self._thread = thread
        self._threads = threads

    def __del__(self) -> None:
        self._threads.discard(self._thread)


class _ThreadLocal(threading.local):
    thread: ThreadState
    exit: _ThreadExit


class ThreadMarks:
    """The marks of all threads of this process, for one environment.

    `opening`, the environment's lock of opening and closing, guards `_threads`. `local.thread` is
    the state of the current thread; a thread that has none yet gets it from `own`.
    """

    def __init__(self, opening: forks.ForkLock, path: Path) -> None:
        self.local = _ThreadLocal()
        self._opening = opening
        self._path = path
        self._threads: set[ThreadState] = set()

    def __len__(self) -> int:
        return len(self._threads)

    def own(self) -> ThreadState:
        """Return the state of this thread."""
        try:
            return self.local.thread
        except AttributeError:
            if not forks.mark[0]:
                forks.recover()  # replaces the lock, which a thread of the parent may hold
            thread = ThreadState()
            with self._opening.lock:
                self._threads.add(thread)
            self.local.thread = thread
            self.local.exit = _ThreadExit(thread, self._threads)
            return thread

    def refuse_reentrance(self, thread: ThreadState) -> None:
        """Raise `ReentrantCall` inside an operation of this thread; else clear its stale marks."""
        if _is_in_operation(thread.ident):
            raise ReentrantCall(
                f"{self._path}: a signal handler, finaliser or callback used the cache "
                "inside an operation of the same thread; nothing was done"
            )
        thread.inside, thread.working = 0, False

    def wait_for_others(self, within_s: float = math.inf) -> bool:
        """Wait until no other thread is inside; none enters, as `current` is `None`.

        The operation of this thread that a fork in a signal handler interrupted does not count.
        Return False if that took too long.
        """
        me = threading.get_ident()
        deadline_s = clock.monotonic_s() + within_s
        for thread in list(self._threads):
            pauses = 0
            while thread.inside and thread.ident != me:
                time.sleep(_PAUSE_S)
                pauses += 1
                if pauses % _PAUSES_PER_LOOK == 0 and not _is_in_operation(thread.ident):
                    break  # the mark is stale
                if clock.monotonic_s() > deadline_s:
                    return False
        return True

    def forget_others(self) -> bool:
        """Forget the threads that exist only in the parent; return True if one of them was inside."""
        me = threading.get_ident()
        others = [thread for thread in self._threads if thread.ident != me]
        self._threads = {thread for thread in self._threads if thread.ident == me}
        for thread in self._threads:  # what it was inside of starts again when it comes back to it
            thread.inside, thread.working = 0, False
        return any(thread.inside for thread in others)


def _is_in_operation(ident: int) -> bool:
    """Return True if an operation is on the stack of another thread; of this one, a second one."""
    return _operations.count(ident) > (ident == threading.get_ident())
