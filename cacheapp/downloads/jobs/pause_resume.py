"""Jobs that rest and go on: paused, taken up again by somebody, tried again where files failed.

Each is one compare-and-set in one transaction, as everything in `ledger` and `rows`, whose invariants hold here.
"""

import dataclasses
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from cacheapp.downloads.jobs import wakeup
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner, finish, is_orphan, mine
from cacheapp.downloads.jobs.rows import grow, mark_paused, now, write
from cacheapp.downloads.plan import FileReport, JobProgress
from cacheapp.downloads.states import (
    OWNED_JOB,
    UNFINISHED_FILE,
    FileState,
    JobState,
    file_sources,
    sources,
)
from cacheapp.downloads.storage.filenames import REFUSED


def request_pause(job_id: UUID) -> bool:
    """Leave word that a job is to pause; return whether it was queued or running."""
    asked = DownloadJob.objects.filter(id=job_id, state__in=OWNED_JOB)
    found = asked.update(pause_requested=True, generation=F("generation") + 1)
    if found:
        transaction.on_commit(wakeup.notify)
    return bool(found)


@transaction.atomic
def pause(
    job_id: UUID,
    owner: JobOwner,
    reports: list[FileReport],
    progress: JobProgress,
    why: str,
    token: int | None = None,
) -> JobState | None:
    """Let go of a job whose run was stopped, to be gone on with; return its state from now on.

    `None`: it is not ours, or another run's. Where it was asked meanwhile that the job be cancelled, it
    ends: whoever asked was told that it would. One that is queued has no run to keep earlier ones
    from naming files, so it is left to `ending.end`, and `None` is returned.
    """
    job = mine(job_id, owner, token).select_for_update().first()
    if job is None:
        return None
    if job.cancel_requested:
        is_queued = job.state == JobState.QUEUED
        return None if is_queued else finish(job_id, owner, reports, progress, "", token)
    write(reports, grow(job_id))
    mark_paused(job, why, **dataclasses.asdict(progress))
    return JobState.PAUSED


@transaction.atomic
def requeue(job: DownloadJob, owner: JobOwner | None, threads: int | None = None) -> bool:
    """Queue a job again, as ours: one that is paused, has failed or was cancelled, or is an orphan.

    Files that failed or were cancelled are tried again; those that are whole stay, and those that
    were refused for their keys. Return whether
    it was we who took it: it must be as `job` was read, so that of many one wins.
    """
    same = Q(id=job.id, owner=job.owner, state=job.state, heartbeat_at=job.heartbeat_at)
    found = DownloadJob.objects.select_for_update().filter(same).first()
    free = sources(JobState.QUEUED) - OWNED_JOB
    if found is None or not (found.state in free or is_orphan(found)):
        return False
    generation = grow(
        job.id,
        token=F("token") + 1,
        state=JobState.QUEUED,
        owner=None if owner is None else owner.token,
        owner_pid=None if owner is None else owner.pid,
        threads=threads or found.threads,
        heartbeat_at=now(),
        finished_at=None,
        cancel_requested=False,
        pause_requested=False,
        error="",
        files_failed=0,
    )
    again = file_sources(FileState.QUEUED) | UNFINISHED_FILE
    fetchable = found.files.exclude(name_key=None, name__startswith=REFUSED)
    fetchable.filter(state__in=again).update(
        state=FileState.QUEUED, error="", tries=0, generation=generation
    )
    job.refresh_from_db()
    return True
