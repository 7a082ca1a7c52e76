"""Writes single rows of jobs and files; the caller opens the transaction.

Invariant: `generation` counts the changes of a job and its files in the order in which they become
visible. It grows (`bump_generation`) under the lock on the job's row, which is kept until the
transaction ends, and before the rows of files, which record it, are written. So a client that has seen
everything up to some generation misses nothing if it reads only what is newer, from any process.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, F, Q, Sum

from cacheapp import clock
from cacheapp.downloads.jobs import notifications
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.plan import FileReport, JobProgress
from cacheapp.downloads.states import JOB_MOVES, UNFINISHED_FILE, FileState, JobState


def now() -> dt.datetime:
    """Return the wall time in the form that the database stores."""
    return dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)


def bump_generation(job_id: UUID, **changes: Any) -> int:
    """Increment a job's generation, together with other changes; return the new generation."""
    job = DownloadJob.objects.filter(id=job_id)
    job.update(generation=F("generation") + 1, **changes)
    return job.values_list("generation", flat=True).get()


def write_reports(reports: Iterable[FileReport], generation: int) -> None:
    """Update files' rows in one statement, because one job may report 10,000 at once.

    The row of a finished file does not change.
    """
    rows = [
        (
            *(report.state.value, report.bytes_done, report.error),
            *(report.sha256, report.tries, generation, report.item.row),
        )
        for report in reports
    ]
    if not rows:
        return
    unfinished = ", ".join(f"'{state.value}'" for state in sorted(UNFINISHED_FILE))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {DownloadFile._meta.db_table} SET state = %s, bytes_done = %s, error = %s, "  # noqa: S608, SLF001 (our own names)
            f"sha256 = %s, tries = %s, generation = %s WHERE id = %s AND state IN ({unfinished})",
            rows,
        )


def pause_job(job: DownloadJob, why: str, **changes: Any) -> None:
    """Write that a job is paused: its running files are queued, and no heartbeat is expected."""
    if JobState.PAUSED not in JOB_MOVES[JobState(job.state)]:
        raise AssertionError(f"job {job.id} cannot move from {job.state} to paused")
    generation = bump_generation(
        job.id,
        state=JobState.PAUSED,
        pause_requested=False,
        error=why,
        heartbeat_at=now(),
        **changes,
    )
    running = job.files.filter(state=FileState.RUNNING)
    running.update(state=FileState.QUEUED, generation=generation)


def close_job(job: DownloadJob, state: JobState, error: str) -> None:
    """Write a job's end and its notifications: finish its unfinished files, and count the totals."""
    if state not in JOB_MOVES[JobState(job.state)]:
        raise AssertionError(f"job {job.id} cannot move from {job.state} to {state}")
    generation = bump_generation(job.id)
    left = FileState.CANCELLED if state is JobState.CANCELLED else FileState.FAILED
    reason = error or "not fetched: the job was cancelled"
    unfinished = job.files.filter(state__in=UNFINISHED_FILE)
    unfinished.update(state=left, error=reason, generation=generation)
    counts = progress_of(job)
    succeeded = state is JobState.SUCCEEDED
    moment = now()
    DownloadJob.objects.filter(id=job.id).update(
        state=state,
        error=error,
        files_done=counts.files_done,
        files_failed=counts.files_failed,
        bytes_done=counts.bytes_done,
        bytes_total=counts.bytes_done if succeeded else F("bytes_total"),
        heartbeat_at=moment,
        finished_at=moment,
    )
    notifications.add(job.id)


def progress_of(job: DownloadJob) -> JobProgress:
    """Count a job's finished files from their rows."""
    counts = job.files.aggregate(
        done=Count("id", filter=Q(state=FileState.SUCCEEDED)),
        failed=Count("id", filter=Q(state=FileState.FAILED)),
        size=Sum("bytes_done", filter=Q(state=FileState.SUCCEEDED)),
    )
    return JobProgress(counts["done"], counts["failed"], counts["size"] or 0)


def has_progress(job: DownloadJob, progress: JobProgress) -> bool:
    """Return whether the job's row already contains this progress."""
    return all(getattr(job, name) == it for name, it in dataclasses.asdict(progress).items())
