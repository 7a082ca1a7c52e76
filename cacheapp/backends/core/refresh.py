"""Refreshes stale entries in the background, in few daemon threads with a short queue."""

import logging
import queue
from collections.abc import Callable

from django.db import connections

from cacheapp.backends.core import helper_thread
from cacheapp.backends.local import forks

logger = logging.getLogger(__name__)

_THREADS = 2
_QUEUED = 64


class Refresher:
    """A pool of daemon threads that never end.

    `_jobs` is the queue, and `_unstarted` has one item per thread that may still be started. Both
    guard themselves, and a signal handler or finaliser may use them at any point of `submit`. At
    the moment of a race, a few jobs more than the limit are queued.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._unstarted = [None] * _THREADS

    def submit(self, job: Callable[[], None]) -> bool:
        """Queue the job; return False if the queue is full, or if there is no thread."""
        if self._jobs.qsize() >= _QUEUED or not self._has_thread():
            return False
        self._jobs.put(job)
        return True

    def _has_thread(self) -> bool:
        """Start another thread if that is allowed; return True if there is at least one."""
        try:
            self._unstarted.pop()
        except IndexError:
            return True
        started = False
        try:
            started = helper_thread.start("cacheapp-refresh", self._run)
        finally:
            if not started:
                self._unstarted.append(None)
        return len(self._unstarted) < _THREADS

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:
                logger.exception(
                    "refreshing a cache entry failed", extra={"event": "cache_refresh_failed"}
                )
            finally:
                # The factory may have used the database. Django does this at the end of a request.
                for connection in connections.all(initialized_only=True):
                    connection.close_if_unusable_or_obsolete()

    def after_fork_in_child(self) -> None:
        """Start empty: the child has no threads, and the queued jobs are the parent's."""
        self.__init__()  # type: ignore[misc]


refresher = Refresher()
forks.register(in_child=refresher.after_fork_in_child)
