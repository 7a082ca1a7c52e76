"""How a job ends that has no run: cancelled as it waits or rests, or never to begin.

Earlier runs are shut out first (`fencing`): none of them names a file once the end can be seen. No
transaction is open meanwhile: a disk may be slow, and all heartbeats go through the database.
"""

import logging
from uuid import UUID

from django.db import transaction

from cacheapp.downloads.jobs import ownership, repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.jobs.rows import close, grow, write
from cacheapp.downloads.plan import FileReport
from cacheapp.downloads.states import JobState
from cacheapp.downloads.storage.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def end(job: DownloadJob, owner: JobOwner, error: str) -> None:
    """End a queued job of ours; what an earlier run has fetched counts, and its partial files go.

    Raise `OSError` where earlier runs cannot be shut out, and nothing was changed.
    """
    run_directory = repository.run_directory_of(job, job.token)
    if run_directory is None or not run_directory.has_directories():
        ownership.end_waiting(job, owner, [], error)
        return
    run_directory.take_over()
    if not repository.has_token(job.id, owner, job.token):
        run_directory.remove_if_empty()
        return
    if ownership.end_waiting(job, owner, repository.whole(job, run_directory), error):
        run_directory.remove_all()


def cancel(job_id: UUID) -> bool:
    """Leave word that a job is to be cancelled; return whether it was we who found it unfinished.

    A paused one, which nobody has to be alive for, is cancelled at once. Raise `OSError` where its
    earlier runs cannot be shut out, and it stays paused.
    """
    while not repository.request_cancel(job_id):
        job = _claimed(job_id)
        if job is None:  # it has ended, or somebody has just taken it up
            return repository.request_cancel(job_id)
        if _cancelled(job):
            return True
    return True


@transaction.atomic
def _claimed(job_id: UUID) -> DownloadJob | None:
    """Raise the token of a paused job, and return it; so does whoever takes it up, or cancels it too."""
    paused = DownloadJob.objects.select_for_update().filter(id=job_id, state=JobState.PAUSED)
    job = paused.first()
    if job is not None:
        job.token += 1
        grow(job.id, token=job.token)
    return job


def _cancelled(job: DownloadJob) -> bool:
    """Cancel a paused job; return whether it was still ours to cancel."""
    run_directory = repository.run_directory_of(job, job.token)
    if run_directory is None or not run_directory.has_directories():
        return _closed(job, [], None)
    reports: list[FileReport] = []
    try:
        run_directory.take_over()
        reports = repository.whole(job, run_directory)
    except OSError as exc:
        if not job.destination:
            raise
        logger.warning("job %s: what is in its directory stays there: %s", job.id, exc)
    return _closed(job, reports, run_directory)


@transaction.atomic
def _closed(
    job: DownloadJob, reports: list[FileReport], run_directory: RunDirectory | None
) -> bool:
    ours = DownloadJob.objects.select_for_update().filter(id=job.id, token=job.token)
    found = ours.filter(state=JobState.PAUSED).first()
    if found is not None:
        write(reports, grow(job.id))
        close(found, JobState.CANCELLED, "")
    if run_directory is not None:
        transaction.on_commit(
            run_directory.remove_if_empty if found is None else run_directory.remove_all
        )
    return found is not None
