"""The writes that all others are made of; each stands in its caller's transaction.

Invariant: `generation` counts the changes of a job and its files, in the order in which they become
visible. It holds because it grows (`grow`) under the lock on the job's row, kept until the
transaction ends, and before the files' rows, which note it, are written. So whoever has seen all up
to some generation misses nothing by asking for what is newer, whichever process answers.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Count, F, Q, Sum

from cacheapp import clock
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.plan import FileReport, JobProgress
from cacheapp.downloads.states import JOB_MOVES, UNFINISHED_FILE, FileState, JobState

_ROWS = 500
"""In one statement, where the database takes as many."""


class NewFile(NamedTuple):
    """What is known of a file as it comes to its job, as `DownloadFile` calls it."""

    position: int
    url: str
    name: str
    name_key: str | None
    expected_sha256: str = ""
    expected_size: int | None = None
    etag: str = ""
    state: str = FileState.QUEUED.value
    error: str = ""
    generation: int = 1


def now() -> dt.datetime:
    """Return the wall time as the database keeps it."""
    return dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)


def grow(job_id: UUID, **changes: Any) -> int:
    """Change a job, and count that as a change; return its generation from now on."""
    job = DownloadJob.objects.filter(id=job_id)
    job.update(generation=F("generation") + 1, **changes)
    return job.values_list("generation", flat=True).get()


def insert(job_id: UUID, files: Sequence[NewFile]) -> None:
    """Write the rows of new files, all else of them being as usual.

    A view waits for it. `bulk_create` takes twice as long: it prepares each value of each row, 14 of
    10,000 in one job. One statement for each row would let go of the interpreter's lock as often, and
    wait for it where other threads are busy.
    """
    fields = [it for it in DownloadFile._meta.concrete_fields if not it.primary_key]  # noqa: SLF001 (Django's documented API)
    same = {
        field.attname: field.get_db_prep_save(
            job_id if field.attname == "job_id" else field.get_default(), connection
        )
        for field in fields
        if field.attname not in NewFile._fields
    }
    rest = tuple(same.values())
    columns = ", ".join([*NewFile._fields, *same])
    row = f"({', '.join(['%s'] * len(fields))})"
    most = min(_ROWS, connection.ops.bulk_batch_size(fields, files))
    with connection.cursor() as cursor:
        for first in range(0, len(files), most):
            batch = files[first : first + most]
            cursor.execute(
                f"INSERT INTO {DownloadFile._meta.db_table} ({columns}) "  # noqa: S608, SLF001 (our own names)
                f"VALUES {', '.join([row] * len(batch))}",
                [value for file in batch for value in (*file, *rest)],
            )


def write(reports: Iterable[FileReport], generation: int) -> None:
    """Write files' rows; one statement for all, because 10,000 may come in one job.

    A file that has ended stays as it ended.
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


def mark_paused(job: DownloadJob, why: str, **changes: Any) -> None:
    """Write that a job is paused: its files wait, and nobody has to be alive for it."""
    if JobState.PAUSED not in JOB_MOVES[JobState(job.state)]:
        raise AssertionError(f"job {job.id} cannot move from {job.state} to paused")
    generation = grow(
        job.id,
        state=JobState.PAUSED,
        pause_requested=False,
        error=why,
        heartbeat_at=now(),
        **changes,
    )
    running = job.files.filter(state=FileState.RUNNING)
    running.update(state=FileState.QUEUED, generation=generation)


def close(job: DownloadJob, state: JobState, error: str) -> None:
    """Write a job's end: no file stays unfinished, and the numbers are counted from the rows."""
    if state not in JOB_MOVES[JobState(job.state)]:
        raise AssertionError(f"job {job.id} cannot move from {job.state} to {state}")
    generation = grow(job.id)
    left = FileState.CANCELLED if state is JobState.CANCELLED else FileState.FAILED
    reason = error or "not fetched: the job was cancelled"
    unfinished = job.files.filter(state__in=UNFINISHED_FILE)
    unfinished.update(state=left, error=reason, generation=generation)
    counts = progress_of(job)
    whole = state is JobState.SUCCEEDED
    moment = now()
    DownloadJob.objects.filter(id=job.id).update(
        state=state,
        error=error,
        files_done=counts.files_done,
        files_failed=counts.files_failed,
        bytes_done=counts.bytes_done,
        bytes_total=counts.bytes_done if whole else F("bytes_total"),
        heartbeat_at=moment,
        finished_at=moment,
    )


def progress_of(job: DownloadJob) -> JobProgress:
    """Return the numbers of the files that have ended."""
    counts = job.files.aggregate(
        done=Count("id", filter=Q(state=FileState.SUCCEEDED)),
        failed=Count("id", filter=Q(state=FileState.FAILED)),
        size=Sum("bytes_done", filter=Q(state=FileState.SUCCEEDED)),
    )
    return JobProgress(counts["done"], counts["failed"], counts["size"] or 0)


def same(job: DownloadJob, progress: JobProgress) -> bool:
    """Return whether the job's row says these numbers already."""
    return all(getattr(job, name) == it for name, it in dataclasses.asdict(progress).items())
