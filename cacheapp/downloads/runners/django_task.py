"""The task of Django's Tasks framework that runs a job if `CACHEAPP["DOWNLOAD_RUNNER"]` is "tasks".

Imported only with Django 6 or later: by `dispatch`, and by the workers of the backend.

The framework has no retries, and a backend may keep a task of a killed worker for ever. So this
task sends another one if it ends before its job, and `TaskSupervisor` does so for a worker that was
killed.
"""

import logging
from uuid import UUID

from django.tasks import task

from cacheapp.conf import conf
from cacheapp.downloads.runners.celery_task import run_job

logger = logging.getLogger(__name__)


@task(backend=conf().download_tasks_backend)
def run_download(job_id: str) -> str:
    """Run a job until it ends, and return its state."""
    try:
        outcome = run_job(UUID(job_id))
    except BaseException:  # the worker was told to end at once: its job is released
        run_download.enqueue(job_id)
        raise
    logger.info(
        *("job %s: task ended: %s", job_id, outcome),
        extra={"event": "job_task_over", "job": job_id, "state": outcome},
    )
    return outcome
