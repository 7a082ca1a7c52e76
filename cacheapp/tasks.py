"""What Celery runs, where `CACHEAPP["DOWNLOAD_RUNNER"]` is "celery"; loaded by its workers alone."""

import logging
import mmap
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from celery.exceptions import Reject
from celery.signals import worker_shutting_down

from cacheapp.conf import conf
from cacheapp.downloads.runners.celery_task import ANOTHER, RELEASED, run_job
from cacheapp.downloads.runners.dispatch import TASK

logger = logging.getLogger(__name__)

# One byte that the worker shares with the processes it forks: only the worker hears of its end, and
# would wait for their tasks. Written from a signal handler, so nothing that takes a lock.
_ending = mmap.mmap(-1, 1)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end(**_: Any) -> None:
    _ending[0] = 1


_COMES_AGAIN = 6
"""After so many times DOWNLOAD_HEARTBEAT_S, a task whose job was another's looks again."""


# Acknowledged when it is over, handed to another worker if this one is lost, and tried again after an
# error that nobody expected (a full disk, say): the task that comes again adopts the job.
@shared_task(  # type: ignore[untyped-decorator]
    name=TASK,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    autoretry_for=(Exception,),
    dont_autoretry_for=(Reject, ValueError),
    max_retries=None,
    retry_backoff=5,
    retry_backoff_max=300,
)
def run_download(self: Task, job_id: str) -> None:
    """Run a job until it is done; or until the worker is to end.

    Invariant: an unfinished job has a task, as long as the broker keeps what it was given. A broker
    that gives a task out again when it has waited for long (Redis, `visibility_timeout`) has one of
    the two, whichever is acknowledged first. So who finds the job another's must not be the last:
    it comes again, until the job has ended or is paused.
    """
    outcome = run_job(UUID(job_id), lambda: bool(_ending[0]))
    logger.info(
        *("job %s: task over: %s", job_id, outcome),
        extra={"event": "job_task_over", "job": job_id, "state": outcome},
    )
    if outcome == RELEASED:
        raise Reject("its worker ends", requeue=True)
    if outcome == ANOTHER:
        raise self.retry(countdown=_COMES_AGAIN * conf().download_heartbeat_s)
