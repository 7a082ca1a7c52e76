"""Refreshes stale entries in the background, in few daemon threads with a short queue."""

import logging
import os
import queue
import threading
from collections.abc import Callable

from django.db import connections

from cacheapp.backends.core import helper_thread

logger = logging.getLogger(__name__)

_THREADS = 2
_QUEUED = 64


class Refresher:
    """A pool of daemon threads that never end. `_lock` guards `_threads`; the queue guards itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(_QUEUED)

    def submit(self, job: Callable[[], None]) -> bool:
        """Queue the job; return False if the queue is full, or if there is no thread."""
        with self._lock:
            if self._threads < min(_THREADS, self._jobs.unfinished_tasks + 1):
                self._threads += helper_thread.start("cacheapp-refresh", self._run)
            if not self._threads:
                return False
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

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
                self._jobs.task_done()

    def after_fork_in_child(self) -> None:
        """Start empty: the child has no threads, and the queued jobs are the parent's."""
        self.__init__()  # type: ignore[misc]


refresher = Refresher()
os.register_at_fork(after_in_child=refresher.after_fork_in_child)
