"""How a job ends that has no run: cancelled as it waits or rests, or never to begin.

Earlier runs are shut out first (`fencing`): none of them names a file once the end can be seen. No
transaction is open meanwhile: a disk may be slow, and all heartbeats go through the database.
"""

import logging
from uuid import UUID

from django.db import transaction

from cacheapp.downloads import adopting, ledger
from cacheapp.downloads.fencing import Fence
from cacheapp.downloads.ledger import Owner
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.plan import Report
from cacheapp.downloads.rows import close, grow, write
from cacheapp.downloads.states import JobState

logger = logging.getLogger(__name__)


def end(job: DownloadJob, owner: Owner, error: str) -> None:
    """End a queued job of ours; what an earlier run has fetched counts, and its partial files go.

    Raise `OSError` where earlier runs cannot be shut out, and nothing was changed.
    """
    fence = ledger.fence_of(job, job.token)
    if fence is None or not fence.is_wanted():
        adopting.end_waiting(job, owner, [], error)
        return
    fence.raise_()
    if not ledger.has_token(job.id, owner, job.token):
        fence.withdraw()
        return
    if adopting.end_waiting(job, owner, ledger.whole(job, fence), error):
        fence.remove()


def cancel(job_id: UUID) -> bool:
    """Leave word that a job is to be cancelled; return whether it was we who found it unfinished.

    A paused one, which nobody has to be alive for, is cancelled at once. Raise `OSError` where its
    earlier runs cannot be shut out, and it stays paused.
    """
    while not ledger.ask_cancel(job_id):
        job = _claimed(job_id)
        if job is None:  # it has ended, or somebody has just taken it up
            return ledger.ask_cancel(job_id)
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
    fence = ledger.fence_of(job, job.token)
    if fence is None or not fence.is_wanted():
        return _closed(job, [], None)
    reports: list[Report] = []
    try:
        fence.raise_()
        reports = ledger.whole(job, fence)
    except OSError as exc:
        if not job.destination:
            raise
        logger.warning("job %s: what is in its directory stays there: %s", job.id, exc)
    return _closed(job, reports, fence)


@transaction.atomic
def _closed(job: DownloadJob, reports: list[Report], fence: Fence | None) -> bool:
    ours = DownloadJob.objects.select_for_update().filter(id=job.id, token=job.token)
    found = ours.filter(state=JobState.PAUSED).first()
    if found is not None:
        write(reports, grow(job.id))
        close(found, JobState.CANCELLED, "")
    if fence is not None:
        transaction.on_commit(fence.withdraw if found is None else fence.remove)
    return found is not None
