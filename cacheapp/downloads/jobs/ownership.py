"""How a job changes hands: released by its owner, adopted by another, or taken from a lost one.

Invariant: a job has at most one owner, and each change of owner raises the fencing token, in one
compare-and-set on all that tells whether the old owner lives (owner, token, heartbeat). Of many who
try, one wins, on every database that evaluates the condition of an UPDATE under the row's lock. What
the former owner still does to the disk is `fencing`'s affair; to the database it writes nothing
(`ledger.mine`).

Whether an owner lives is judged by the watcher's own clock (`OrphanDetector`): a heartbeat that it has not seen
change for a time. No two clocks are compared, and a step of the wall clock orphans nobody.
"""

import dataclasses
import datetime as dt
import logging
from collections.abc import Iterable
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from cacheapp.downloads.jobs import wakeup
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner, mine
from cacheapp.downloads.jobs.rows import close, grow, mark_paused, now, write
from cacheapp.downloads.plan import FileReport, JobProgress
from cacheapp.downloads.states import OWNED_JOB, FileState, JobState

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Seen:
    token: int
    heartbeat_at: dt.datetime
    since_s: float


class OrphanDetector:
    """Which jobs have lost their owner, as one process sees it. For one thread."""

    def __init__(self) -> None:
        self._seen: dict[UUID, _Seen] = {}

    def orphans(
        self, jobs: Iterable[DownloadJob], now_s: float, patience_s: float
    ) -> list[DownloadJob]:
        """Return those of the queued and running jobs that nobody runs; jobs must be fresh."""
        seen, self._seen = self._seen, {}
        lost = []
        for job in jobs:
            before = seen.get(job.id)
            if before is None or (before.token, before.heartbeat_at) != (
                *(job.token, job.heartbeat_at),
            ):
                before = _Seen(job.token, job.heartbeat_at, now_s)
            self._seen[job.id] = before
            if job.owner is None or now_s - before.since_s >= patience_s:
                lost.append(job)
        return lost


def unfinished() -> list[DownloadJob]:
    """Return all queued and running jobs, oldest first."""
    return list(DownloadJob.objects.filter(state__in=OWNED_JOB).order_by("created_at", "id"))


def adopt(job: DownloadJob, owner: JobOwner) -> bool:
    """Make a job ours, queued; return whether it was we who got it."""
    with transaction.atomic():
        moved = _as_seen(job).update(
            state=JobState.QUEUED,
            owner=owner.token,
            owner_pid=owner.pid,
            heartbeat_at=now(),
            token=F("token") + 1,
            adoptions=F("adoptions") + 1,
        )
        if moved:
            _queue_files(job.id, grow(job.id))
    if moved:
        was = "released" if job.owner is None else f"lost by process {job.owner_pid}"
        logger.warning(
            *("job %s: adopted; it was %s", job.id, was),
            extra={"event": "job_adopted", "job": str(job.id), "owner_lost": job.owner is not None},
        )
    return bool(moved)


def pause_lost(job: DownloadJob, why: str) -> bool:
    """Put down a terminal's job whose process is gone; return whether it was we who did.

    The same command goes on with it. One that is to be cancelled is `settling`'s.
    """
    if job.cancel_requested:
        raise AssertionError(f"job {job.id} is to be cancelled, not to be gone on with")
    with transaction.atomic():
        if not _as_seen(job).update(token=F("token") + 1):
            return False
        mark_paused(job, why)
    logger.warning(
        *("job %s: %s", job.id, why),
        extra={"event": "job_paused", "job": str(job.id)},
    )
    return True


def release(
    job_id: UUID, owner: JobOwner, token: int, reports: list[FileReport], progress: JobProgress
) -> bool:
    """Let go of a job that is to go on elsewhere; return whether it was ours."""
    with transaction.atomic():
        job = mine(job_id, owner, token).select_for_update().first()
        if job is None:
            return False
        changes = dataclasses.asdict(progress)
        generation = grow(job_id, state=JobState.QUEUED, owner=None, owner_pid=None, **changes)
        write(reports, generation)
        _queue_files(job_id, generation)
        transaction.on_commit(wakeup.notify)
    logger.info(
        *("job %s: released, %d of %d files whole", job_id, progress.files_done, job.files_total),
        extra={"event": "job_released", "job": str(job_id)},
    )
    return True


def release_rest(owner: JobOwner) -> None:
    """Let go of all jobs that are still the owner's, with what is recorded of them."""
    for job in list(DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB)):
        release_as_is(job, owner)


def release_as_is(job: DownloadJob, owner: JobOwner) -> bool:
    """Let go of a job as it was read, with what is recorded of it; return whether it was ours."""
    progress = JobProgress(job.files_done, job.files_failed, job.bytes_done, job.bytes_total)
    return release(job.id, owner, job.token, [], progress)


def end_waiting(job: DownloadJob, owner: JobOwner, reports: list[FileReport], error: str) -> bool:
    """End a job of ours that has no run: cancelled, or never to begin; return whether it was ours.

    `reports`: of files that are whole though no run could record it.
    """
    with transaction.atomic():
        found = mine(job.id, owner, job.token).select_for_update().first()
        if found is None:
            return False
        write(reports, grow(job.id))
        # Never a success, though all may be whole: no job succeeds without a run.
        state = JobState.CANCELLED if found.cancel_requested else JobState.FAILED
        close(found, state, error)
    logger.warning(
        *("job %s: %s: %s", job.id, state, error or "cancelled without a run"),
        extra={"event": "job_ended", "job": str(job.id), "state": state},
    )
    return True


def _as_seen(job: DownloadJob) -> QuerySet[DownloadJob]:
    """Return the job, if nothing has happened to it since it was read: neither move nor heartbeat."""
    return DownloadJob.objects.filter(
        Q(owner=job.owner) if job.owner is not None else Q(owner__isnull=True),
        id=job.id,
        state=job.state,
        token=job.token,
        heartbeat_at=job.heartbeat_at,
        cancel_requested=job.cancel_requested,
    ).filter(state__in=OWNED_JOB)


def _queue_files(job_id: UUID, generation: int) -> None:
    running = DownloadFile.objects.filter(job=job_id, state=FileState.RUNNING)
    running.update(state=FileState.QUEUED, generation=generation)
