"""Pauses or cancels a terminal's job after its process has ended, in a worker's coordinator.

Cancelling reads the job's directory, which may be on a disk that responds late or never. So it is done
in a thread of its own, while the coordinator goes on writing the heartbeat of all jobs.
"""

import logging
import threading
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp.downloads.jobs import transitions
from cacheapp.downloads.jobs.models import DownloadJob

logger = logging.getLogger(__name__)


class TerminalCleanup:
    """The threads that cancel terminals' jobs. For use by one thread."""

    def __init__(self) -> None:
        self._threads: dict[UUID, threading.Thread] = {}

    def clean_up(self, job: DownloadJob, why: str) -> None:
        """Pause a job, or start to cancel it; the job must be as it was read."""
        if not job.cancel_requested:
            transitions.pause_lost(job, why)
            return
        self._threads = {key: thread for key, thread in self._threads.items() if thread.is_alive()}
        if job.id in self._threads:  # its disk has not responded yet
            return
        thread = threading.Thread(
            target=_cancel_beside, args=(job,), name="downloads-terminal-cleanup", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # the system has no more threads: the next look tries again
            logger.warning("job %s: not cancelled yet: %s", job.id, exc)
            return
        self._threads[job.id] = thread


def _cancel_beside(job: DownloadJob) -> None:
    try:
        transitions.cancel_lost(job)
    except DatabaseError as exc:  # the next look finds the job unchanged
        logger.warning("job %s: not cancelled yet: %s", job.id, exc)
    except Exception:
        logger.exception("job %s: not cancelled", job.id)
    finally:
        connection.close()
