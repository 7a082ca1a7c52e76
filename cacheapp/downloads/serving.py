"""Runs one job in this process, for as long as it is this process's: what a Celery task does.

The job is adopted as any other is (`adopting`), by a coordinator that looks after it alone. So a task
that is delivered twice finds that the owner lives, and ends; and one whose first worker was lost goes
on, from the bytes on disk.
"""

import logging
import threading
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp.downloads.host import Host
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.states import OWNED_JOB

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_THREADS_END_S = 5.0


def serve(job_id: UUID) -> str:
    """Return why this process is done with the job: its state, `gone`, or `another runs it`."""
    host = Host(only=job_id)
    host.wake()
    try:
        return _wait(job_id, host)
    finally:
        host.close(_THREADS_END_S)
        host.release()
        connection.close()


def _wait(job_id: UUID, host: Host) -> str:
    heartbeats = set()
    resting = threading.Event()
    while True:
        try:
            job = DownloadJob.objects.filter(id=job_id).first()
        except DatabaseError as exc:  # locked: the coordinator says so, and goes on
            logger.debug("job %s: not looked at: %s", job_id, exc)
            connection.close()
            resting.wait(_LOOK_S)
            continue
        if job is None:
            return "gone"
        if job.state not in OWNED_JOB:
            return job.state
        if job.owner not in {None, host.owner.token}:
            heartbeats.add((job.owner, job.heartbeat_at))
            if len(heartbeats) > 1:  # it lives; if it is lost, its own task comes again
                return "another runs it"
        resting.wait(_LOOK_S)
