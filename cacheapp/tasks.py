"""What Celery runs, where `CACHEAPP["DOWNLOAD_RUNNER"]` is "celery"; loaded by its workers alone."""

import logging
from uuid import UUID

from celery import shared_task

from cacheapp.downloads.handing import TASK
from cacheapp.downloads.serving import serve

logger = logging.getLogger(__name__)


# Acknowledged when it is over, and handed to another worker if this one is lost: the task that comes
# again adopts the job.
@shared_task(name=TASK, acks_late=True, reject_on_worker_lost=True, ignore_result=True)  # type: ignore[untyped-decorator]
def run_download(job_id: str) -> None:
    """Run a job until it is done, or somebody else's."""
    outcome = serve(UUID(job_id))
    logger.info(
        *("job %s: task over: %s", job_id, outcome),
        extra={"event": "job_task_over", "job": job_id, "state": outcome},
    )
