"""Reentrant locks of threads that no exception of a signal handler leaves held."""

import _thread
import sys
import threading
from collections.abc import Callable


class _RLock(_thread.RLock):  # type: ignore[misc]  # may be subclassed, whatever typeshed says
    """A lock whose `__enter__` releases it again if a signal handler raises at its end.

    Before 3.14, Python begins a `with` block in one step. Now it looks for signals after it has called
    `__enter__`, when `__exit__` is not yet sure to be called (gh-148874). It does not after a function
    that is written in Python, such as this one, and in here the `except` is in force. `__exit__` stays
    a function of C, which releases the lock before Python looks for signals.
    """

    _recursion_count: Callable[[], int]

    def __enter__(self) -> bool:  # type: ignore[override]
        held = self._recursion_count()
        try:
            return self.acquire()
        except BaseException:
            while self._recursion_count() > held:
                self.release()
            raise


def reentrant_lock() -> _thread.RLock:
    """Return a new lock for `with` blocks, which the thread that holds it may enter again.

    Under gevent it is gevent's, which Python does not interrupt there.
    """
    lock = threading.RLock()  # noqa: TID251
    if sys.version_info >= (3, 14) and isinstance(lock, _thread.RLock):
        return _RLock()
    return lock
