"""Runs one job in this process for as long as it owns it: the body of the Celery task.

A coordinator for this job alone adopts it like any other. So a task that is delivered twice finds a
live owner and does nothing (`cacheapp.downloads.tasks`), and a task that lost its first worker resumes from
the bytes on disk.
"""

import logging
import threading
from collections.abc import Callable
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import notifier
from cacheapp.downloads.runners.coordinator import Coordinator
from cacheapp.downloads.states import OWNED_JOB

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_THREADS_END_S = 5.0


OTHER_OWNER, REMOVED, RELEASED = "another process runs it", "removed", "released"


def run_job(job_id: UUID, is_ending: Callable[[], bool] = lambda: False) -> str:
    """Run a job; return its final state, or `OTHER_OWNER`, `REMOVED`, `RELEASED`.

    `RELEASED`: `is_ending` returned True because this process is to end; another one may resume the job.
    """
    coordinator = Coordinator(only=job_id)
    coordinator.wake()
    try:
        return _wait(job_id, coordinator, is_ending)
    finally:
        coordinator.close(_THREADS_END_S)
        try:
            coordinator.release()
        except DatabaseError as exc:
            logger.warning("job %s: not released; others will find it lost: %s", job_id, exc)
        connection.close()


def _wait(job_id: UUID, coordinator: Coordinator, is_ending: Callable[[], bool]) -> str:
    heartbeats = set()
    pause = threading.Event()
    while not is_ending():
        try:
            job = DownloadJob.objects.filter(id=job_id).first()
        except DatabaseError as exc:  # locked: the coordinator logs it and goes on
            logger.debug("job %s: not read: %s", job_id, exc)
            connection.close()
            pause.wait(_LOOK_S)
            continue
        if job is None:
            return REMOVED
        if job.state not in OWNED_JOB:
            notifier.deliver(job_id)
            return job.state
        if job.owner not in {None, coordinator.owner.token}:
            heartbeats.add((job.owner, job.heartbeat_at))
            if len(heartbeats) > 1:  # its owner is alive
                return OTHER_OWNER
        pause.wait(_LOOK_S)
    return RELEASED
