"""The Celery task that runs a job if `CACHEAPP["DOWNLOAD_RUNNER"]` is "celery"; for Celery's workers."""

import logging
import mmap
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from celery.exceptions import Reject
from celery.signals import worker_shutting_down

from cacheapp.conf import conf
from cacheapp.downloads.runners import notifier
from cacheapp.downloads.runners.celery_task import OTHER_OWNER, RELEASED, run_job
from cacheapp.downloads.runners.dispatch import TASK

logger = logging.getLogger(__name__)

# One byte shared with the processes that the worker forks: only the worker receives the signal to
# end, and it waits for their tasks. A signal handler writes it, so it must not need a lock.
_ending = mmap.mmap(-1, 1)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end(**_: Any) -> None:
    _ending[0] = 1


_RETRY_HEARTBEATS = 6
"""A task is retried, if another process runs its job, after this many times DOWNLOAD_HEARTBEAT_S."""


# Acknowledged when it is over, delivered to another worker if this one is lost, and retried after an
# unexpected error such as a full disk: the next delivery adopts the job.
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
    """Run a job until it ends or the worker is to end.

    Invariant: an unfinished job has a task, as long as the broker loses none. A broker that delivers a
    long-running task again (Redis, `visibility_timeout`) keeps one of the two, depending on which is
    acknowledged first. So a task that finds the job run by another process must not be the last one:
    it is retried until the job has ended or is paused, and until its notifications are delivered.
    """
    outcome = run_job(UUID(job_id), lambda: bool(_ending[0]))
    logger.info(
        *("job %s: task ended: %s", job_id, outcome),
        extra={"event": "job_task_over", "job": job_id, "state": outcome},
    )
    if outcome == RELEASED:
        raise Reject("the worker ends", requeue=True)
    if outcome == OTHER_OWNER:
        raise self.retry(countdown=_RETRY_HEARTBEATS * conf().download_heartbeat_s)
    if (wait_s := notifier.due_in_s(UUID(job_id))) is not None:
        raise self.retry(countdown=wait_s)
