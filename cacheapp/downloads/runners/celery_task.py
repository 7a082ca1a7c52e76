"""Runs one job in this process, for as long as it is this process's: what a Celery task does.

The job is adopted as any other is (`adopting`), by a coordinator that looks after it alone. So a task
that is delivered twice finds that the owner lives, and lets it be (`tasks`); and one whose first worker was lost goes
on, from the bytes on disk.
"""

import logging
import threading
from collections.abc import Callable
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners.coordinator import Coordinator
from cacheapp.downloads.states import OWNED_JOB

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_THREADS_END_S = 5.0


ANOTHER, GONE, RELEASED = "another runs it", "gone", "released"


def run_job(job_id: UUID, is_ending: Callable[[], bool] = lambda: False) -> str:
    """Run a job; return its state as it was left, or `ANOTHER`, `GONE`, `RELEASED`.

    The last, where `is_ending` says that this process is to end: somebody else may go on.
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
            logger.warning("job %s: not released, so it will be found lost: %s", job_id, exc)
        connection.close()


def _wait(job_id: UUID, coordinator: Coordinator, is_ending: Callable[[], bool]) -> str:
    heartbeats = set()
    resting = threading.Event()
    while not is_ending():
        try:
            job = DownloadJob.objects.filter(id=job_id).first()
        except DatabaseError as exc:  # locked: the coordinator says so, and goes on
            logger.debug("job %s: not looked at: %s", job_id, exc)
            connection.close()
            resting.wait(_LOOK_S)
            continue
        if job is None:
            return GONE
        if job.state not in OWNED_JOB:
            return job.state
        if job.owner not in {None, coordinator.owner.token}:
            heartbeats.add((job.owner, job.heartbeat_at))
            if len(heartbeats) > 1:  # it lives
                return ANOTHER
        resting.wait(_LOOK_S)
    return RELEASED
