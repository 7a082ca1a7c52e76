"""What becomes of a terminal's job whose process is gone: the coordinators of workers see to it.

It is put down, for the same command to go on with; or, where that was asked for, cancelled. To cancel
is to look into the job's directory, which may be on a disk of somebody's own that answers late, or
never: so that is done beside the coordinator, which writes the heartbeat of all jobs meanwhile.
"""

import logging
import os
import threading
import uuid
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp.downloads.jobs import ownership, termination
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner

logger = logging.getLogger(__name__)


class TerminalCleanup:
    """The terminals' jobs that one process settles. For one thread."""

    def __init__(self) -> None:
        self._threads: dict[UUID, threading.Thread] = {}

    def clean_up(self, job: DownloadJob, why: str) -> None:
        """Put a job down, or begin to cancel it; the job is as it was read."""
        if not job.cancel_requested:
            ownership.pause_lost(job, why)
            return
        self._threads = {key: thread for key, thread in self._threads.items() if thread.is_alive()}
        if job.id in self._threads:  # its disk has not answered yet
            return
        thread = threading.Thread(
            target=_cancel_beside, args=(job,), name="downloads-settler", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # the system has no more threads: at a later look
            logger.warning("job %s: not cancelled yet: %s", job.id, exc)
            return
        self._threads[job.id] = thread


def cancel(job: DownloadJob) -> bool:
    """Cancel a lost job; return whether it was we who did.

    We adopt it for that, and give no heartbeat: if we are killed, or the disk does not answer, it is
    found again as any other job that lost its owner. A directory that this process may not write to
    holds nobody up: its job is cancelled as it stands, and what is noted there is read by the same
    command, if it comes.
    """
    me = JobOwner(uuid.uuid4(), os.getpid())
    if not ownership.adopt(job, me):
        return False
    job.refresh_from_db()
    try:
        termination.end(job, me, "")
    except OSError as exc:
        logger.warning("job %s: what is in its directory stays there: %s", job.id, exc)
        ownership.end_waiting(job, me, [], "")
    return True


def _cancel_beside(job: DownloadJob) -> None:
    try:
        cancel(job)
    except DatabaseError as exc:  # the next look finds the job as it is
        logger.warning("job %s: not cancelled yet: %s", job.id, exc)
    except Exception:
        logger.exception("cancelling job %s", job.id)
    finally:
        connection.close()
