"""Every way in which a job stops, changes its owner, or is queued again.

The coordinator, the terminal and the commands on a job all use these functions. Invariants:

- Each is one compare-and-set in one transaction, on "unfinished and still this owner's" (`owned_by`),
  on "unchanged since it was read" (`unchanged`), or under the row's lock. So exactly one caller ends
  a job. A run also passes its token: the job may have had other owners since, and belong to a later
  run of the same process.
- The rows of a job's files are written in the transaction that found the job unfinished: a late owner
  writes nothing. No file of a finished job is unfinished.
- Before a job without a run ends, its earlier runs are shut out (`RunDirectory.take_over`): none of
  them publishes a file after the end is visible. No transaction is open during that: a disk may be slow,
  and all heartbeats need the database.
"""

import dataclasses
import logging
from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from cacheapp.downloads.jobs import audit, quota, wakeup
from cacheapp.downloads.jobs.actors import CODE, Actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import (
    JobOwner,
    has_token,
    is_orphan,
    new_owner,
    owned_by,
    unchanged,
)
from cacheapp.downloads.jobs.repository import published_files, run_directory_of
from cacheapp.downloads.jobs.rows import (
    bump_generation,
    close_job,
    now,
    pause_job,
    progress_of,
    write_reports,
)
from cacheapp.downloads.plan import FileReport, JobProgress
from cacheapp.downloads.states import (
    FINISHED_JOB,
    OWNED_JOB,
    UNFINISHED_FILE,
    FileState,
    JobState,
    file_sources,
    outcome,
    sources,
)
from cacheapp.downloads.storage.filenames import REFUSED
from cacheapp.downloads.storage.run_directory import RunDirectory

logger = logging.getLogger(__name__)

_KEYS = 500
"""Keys in one statement."""


# Requests to the owner, which applies them when it next records its progress.


def request_pause(job_id: UUID, by: Actor = CODE) -> bool:
    """Request that a job pause; return False if it is neither queued nor running."""
    return _request(job_id, "pause_requested", audit.PAUSE, by)


def request_cancel(job_id: UUID, by: Actor = CODE) -> bool:
    """Request that a job be cancelled; return False if it is neither queued nor running."""
    return _request(job_id, "cancel_requested", audit.CANCEL, by)


@transaction.atomic
def _request(job_id: UUID, flag: str, action: str, by: Actor) -> bool:
    jobs = DownloadJob.objects.filter(id=job_id, state__in=OWNED_JOB)
    changes = {"generation": F("generation") + 1, flag: True}
    is_first = bool(jobs.filter(**{flag: False}).update(**changes))
    if is_first:
        audit.record(job_id, action, by)
    found = is_first or bool(jobs.update(**changes))
    if found:
        transaction.on_commit(wakeup.notify)
    return found


# The end of a run, by its owner.


@transaction.atomic
def finish(
    job_id: UUID,
    owner: JobOwner,
    reports: list[FileReport],
    progress: JobProgress,
    error: str,
    token: int | None = None,
) -> JobState | None:
    """End a job after its run; return its state, or `None` if the job is not this run's."""
    job = owned_by(job_id, owner, token).select_for_update().first()
    if job is None:
        return None
    write_reports(reports, bump_generation(job_id))
    # A listing that is incomplete or empty is a failure, even if all its files succeeded.
    missing = int(not (job.listed_all and (job.files_total or job.files_unchanged)))
    state = outcome(
        total=job.files_total + missing,
        done=progress.files_done,
        cancel_requested=job.cancel_requested,
    )
    if state is JobState.FAILED and not error:
        error = f"{progress.files_failed:,} of {job.files_total:,} files failed"
    close_job(job, state, "" if state is JobState.SUCCEEDED else error)
    return state


@transaction.atomic
def pause(
    job_id: UUID,
    owner: JobOwner,
    reports: list[FileReport],
    progress: JobProgress,
    why: str,
    token: int | None = None,
) -> JobState | None:
    """Pause a job after its run was stopped; return its state, or `None` if it is not this run's.

    If a cancellation was requested in the meantime, the job is cancelled, because that request was
    accepted. A queued job has no run that shuts out the earlier ones, so that case is left to
    `end_queued`, and `None` is returned.
    """
    job = owned_by(job_id, owner, token).select_for_update().first()
    if job is None:
        return None
    if job.cancel_requested:
        is_queued = job.state == JobState.QUEUED
        return None if is_queued else finish(job_id, owner, reports, progress, "", token)
    write_reports(reports, bump_generation(job_id))
    pause_job(job, why, **dataclasses.asdict(progress))
    return JobState.PAUSED


def release(
    job_id: UUID, owner: JobOwner, token: int, reports: list[FileReport], progress: JobProgress
) -> bool:
    """Queue a job without an owner, so that another process adopts it; return False if it is not ours."""
    with transaction.atomic():
        job = owned_by(job_id, owner, token).select_for_update().first()
        if job is None:
            return False
        generation = bump_generation(
            job_id,
            state=JobState.QUEUED,
            owner=None,
            owner_pid=None,
            **dataclasses.asdict(progress),
        )
        write_reports(reports, generation)
        _queue_files(job_id, generation)
        transaction.on_commit(wakeup.notify)
    logger.info(
        *("job %s: released, %d of %d files done", job_id, progress.files_done, job.files_total),
        extra={"event": "job_released", "job": str(job_id)},
    )
    return True


def release_all(owner: JobOwner) -> None:
    """Release all jobs of an owner with the progress that the database has."""
    for job in list(DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB)):
        release_unchanged(job, owner)


def release_unchanged(job: DownloadJob, owner: JobOwner) -> bool:
    """Release a job with the progress that the database has; return False if it is not ours."""
    progress = JobProgress(job.files_done, job.files_failed, job.bytes_done, job.bytes_total)
    return release(job.id, owner, job.token, [], progress)


# A new owner.


def adopt(job: DownloadJob, owner: JobOwner) -> bool:
    """Queue a job that has lost its owner as `owner`'s; return True if this call acquired it."""
    with transaction.atomic():
        moved = unchanged(job).update(
            state=JobState.QUEUED,
            owner=owner.token,
            owner_pid=owner.pid,
            heartbeat_at=now(),
            token=F("token") + 1,
            adoptions=F("adoptions") + 1,
        )
        if moved:
            _queue_files(job.id, bump_generation(job.id))
            audit.record_run(job, audit.ADOPT, owner.pid, _why_adopted(job))
    if moved:
        was = "released" if job.owner is None else f"lost by process {job.owner_pid}"
        logger.warning(
            *("job %s: adopted; it was %s", job.id, was),
            extra={"event": "job_adopted", "job": str(job.id), "owner_lost": job.owner is not None},
        )
    return bool(moved)


def _why_adopted(job: DownloadJob) -> str:
    """Return the reason for the audit trail; `job` is as it was before."""
    if job.owner is None:
        return "it had no worker"
    silent_s = (now() - job.heartbeat_at).total_seconds()
    return f"worker {job.owner_pid} gave no sign of life for {silent_s:.1f} s"


@transaction.atomic
def requeue(
    job: DownloadJob,
    owner: JobOwner | None,
    threads: int | None = None,
    missing: Sequence[int] = (),
    by: Actor = CODE,
    only: int | None = None,
) -> bool:
    """Queue a paused, failed, cancelled or orphaned job as `owner`'s; return True if this call did it.

    The job must be as it was read, so that one of several callers succeeds. Failed and cancelled
    files are queued again, and so are files that succeeded and are `missing` on disk now. The other
    files that succeeded stay, and so do those with refused names. `only`: of the failed and cancelled
    files, queue the one at this position. Raise `QuotaExceeded` if
    the job has ended and its creator may have no further one.
    """
    same = Q(id=job.id, owner=job.owner, state=job.state, heartbeat_at=job.heartbeat_at)
    found = DownloadJob.objects.select_for_update().filter(same).first()
    free = sources(JobState.QUEUED) - OWNED_JOB
    if found is None or not (found.state in free or is_orphan(found)):
        return False
    if found.state in FINISHED_JOB:
        left = found.files_total - found.files_done + len(missing)
        quota.reserve(found.creator, left if found.listed_all else None)
    audit.record(job.id, audit.RETRY if found.state in FINISHED_JOB else audit.RESUME, by)
    generation = bump_generation(
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
    _queue_unfinished(found, generation, only)
    if missing:
        _queue_missing(found, missing, generation)
    job.refresh_from_db()
    return True


def _queue_unfinished(job: DownloadJob, generation: int, only: int | None = None) -> None:
    again = (file_sources(FileState.QUEUED) | UNFINISHED_FILE) - {FileState.SUCCEEDED}
    fetchable = job.files.exclude(name_key=None, name__startswith=REFUSED)
    if only is not None:
        fetchable = fetchable.filter(position=only)
    fetchable.filter(state__in=again).update(
        state=FileState.QUEUED, error="", tries=0, generation=generation
    )


def _queue_missing(job: DownloadJob, missing: Sequence[int], generation: int) -> None:
    for first in range(0, len(missing), _KEYS):
        keys = missing[first : first + _KEYS]
        job.files.filter(pk__in=keys, state=FileState.SUCCEEDED).update(
            state=FileState.QUEUED,
            error="",
            tries=0,
            bytes_done=0,
            sha256="",
            generation=generation,
        )
    counts = progress_of(job)
    DownloadJob.objects.filter(id=job.id).update(
        files_done=counts.files_done, bytes_done=counts.bytes_done
    )
    logger.warning(
        *("job %s: %d complete files are missing and are fetched again", job.id, len(missing)),
        extra={"event": "files_missing", "job": str(job.id), "files": len(missing)},
    )


def pause_lost(job: DownloadJob, why: str) -> bool:
    """Pause a terminal's job after its process has ended; return True if this call did it.

    The same command resumes it. If its cancellation was requested, use `cancel_lost`.
    """
    if job.cancel_requested:
        raise AssertionError(f"job {job.id} is to be cancelled; expected one without that request")
    with transaction.atomic():
        if not unchanged(job).update(token=F("token") + 1):
            return False
        pause_job(job, why)
    logger.warning(
        *("job %s: paused: %s", job.id, why), extra={"event": "job_paused", "job": str(job.id)}
    )
    return True


# The end of a job that has no run.


def end_queued(job: DownloadJob, owner: JobOwner, error: str) -> None:
    """End a queued job of this owner: as cancelled if that was requested, else as failed.

    Files that an earlier run published count as succeeded. The partial files of a cancelled job are
    removed; those of a failed one stay for a retry. Raise `OSError` if earlier runs cannot be shut out; nothing has changed then.
    """
    run_directory = run_directory_of(job, job.token)
    if run_directory is None or not run_directory.has_directories():
        end_without_run(job, owner, [], error)
        return
    run_directory.take_over()
    if not has_token(job.id, owner, job.token):
        run_directory.remove_if_empty()
        return
    state = end_without_run(job, owner, published_files(job, run_directory), error)
    is_kept = state is JobState.FAILED and run_directory.has_partial_files()
    if state is not None and not is_kept:
        run_directory.remove_all()


def end_without_run(
    job: DownloadJob, owner: JobOwner, reports: list[FileReport], error: str
) -> JobState | None:
    """Write the end of a job of this owner that has no run; return its state, `None` if not this owner's.

    `reports`: files that are on disk although no run has recorded them. The job never counts as
    succeeded, not even if all its files are there: only a run can decide that.
    """
    state = _close_first(owned_by(job.id, owner, job.token), reports, error)
    if state is None:
        return None
    logger.warning(
        *("job %s: %s: %s", job.id, state, error or "without a run"),
        extra={"event": "job_ended", "job": str(job.id), "state": state},
    )
    return state


def cancel_lost(job: DownloadJob) -> bool:
    """Cancel a queued or running job that has no live owner; return True if this call adopted it.

    It is adopted under a new identity that sends no heartbeat: if this process is killed, or the disk
    does not respond, the job is found again like any other that lost its owner. A terminal's directory
    that this process cannot write to does not prevent the end: its job is cancelled, and the same
    command reads later what is recorded there.
    """
    owner = new_owner()
    if not adopt(job, owner):
        return False
    job.refresh_from_db()
    try:
        end_queued(job, owner, "")
    except OSError as exc:
        if job.destination:
            logger.warning("job %s: its partial files stay in its directory: %s", job.id, exc)
            end_without_run(job, owner, [], "")
        else:  # the next process that adopts it tries again
            logger.warning("job %s: not cancelled yet: %s", job.id, exc)
    return True


def cancel(job_id: UUID, by: Actor = CODE) -> bool:
    """Request that a job be cancelled; return False if it has ended already.

    A paused job, which needs no process, is cancelled at once. Raise `OSError` if its earlier runs
    cannot be shut out; it stays paused.
    """
    while not request_cancel(job_id, by):
        job = _claim_paused(job_id)
        if job is None:  # it has ended, or another process has just queued it
            return request_cancel(job_id, by)
        if _cancel_paused(job, by):
            return True
    return True


@transaction.atomic
def _claim_paused(job_id: UUID) -> DownloadJob | None:
    """Raise the token of a paused job and return it; a process that resumes or cancels it does so too."""
    paused = DownloadJob.objects.select_for_update().filter(id=job_id, state=JobState.PAUSED)
    job = paused.first()
    if job is not None:
        job.token += 1
        bump_generation(job.id, token=job.token)
    return job


def _cancel_paused(job: DownloadJob, by: Actor) -> bool:
    """Cancel a claimed job; return False if another process has claimed it since."""
    jobs = DownloadJob.objects.filter(id=job.id, token=job.token, state=JobState.PAUSED)
    run_directory = run_directory_of(job, job.token)
    if run_directory is None or not run_directory.has_directories():
        return _close_first(jobs, [], "", by=by) is not None
    reports: list[FileReport] = []
    try:
        run_directory.take_over()
        reports = published_files(job, run_directory)
    except OSError as exc:
        if not job.destination:
            raise
        logger.warning("job %s: its partial files stay in its directory: %s", job.id, exc)
    return _close_first(jobs, reports, "", run_directory, by=by) is not None


@transaction.atomic
def _close_first(
    jobs: QuerySet[DownloadJob],
    reports: list[FileReport],
    error: str,
    run_directory: RunDirectory | None = None,
    by: Actor | None = None,
) -> JobState | None:
    """End the job that a query still finds, with the reports; return its state, or `None`.

    `by`: the actor that cancels it with this call, if no earlier request did.

    After the commit, `run_directory` is removed: whole if the job has ended, else if it is empty.
    """
    job = jobs.select_for_update().first()
    state = None
    if job is not None:
        is_cancelled = job.cancel_requested or job.state == JobState.PAUSED
        state = JobState.CANCELLED if is_cancelled else JobState.FAILED
        if by is not None:
            audit.record(job.id, audit.CANCEL, by)
        write_reports(reports, bump_generation(job.id))
        close_job(job, state, error)
    if run_directory is not None:
        transaction.on_commit(
            run_directory.remove_if_empty if job is None else run_directory.remove_all
        )
    return state


def _queue_files(job_id: UUID, generation: int) -> None:
    running = DownloadFile.objects.filter(job=job_id, state=FileState.RUNNING)
    running.update(state=FileState.QUEUED, generation=generation)
