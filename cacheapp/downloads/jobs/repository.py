"""Creates, reads and starts jobs, and records the progress of their runs.

What stops a job or changes its owner is in `transitions`. Invariants: a job and its files are created in
one transaction, and an owner's progress is recorded in one, with its heartbeat. Each change raises the
job's generation (see `rows`).

SQLite takes the write lock when a transaction begins (see the settings); on other databases the first
UPDATE or `select_for_update` locks the row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from cacheapp.conf import Conf, conf
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.jobs import audit, quota
from cacheapp.downloads.jobs.actors import CODE, MAX_NAME, Actor
from cacheapp.downloads.jobs.idempotency import IdempotentOrder
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner, owned_by
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.jobs.rows import (
    bump_generation,
    has_progress,
    now,
    progress_of,
    write_reports,
)
from cacheapp.downloads.plan import FileReport, Item, JobProgress, Plan, RetryPolicy
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import OWNED_JOB, UNFINISHED_FILE, FileState, JobState, sources
from cacheapp.downloads.storage.filenames import NameRules, original_name
from cacheapp.downloads.storage.journal import Journal
from cacheapp.downloads.storage.run_directory import RunDirectory

_INSERT_ROWS = 500
"""Rows of one INSERT statement, if the database accepts as many."""


class NewFile(NamedTuple):
    """The columns of a new file's row, named as in `DownloadFile`."""

    position: int
    url: str
    name: str
    name_key: str | None
    expected_checksum: str = ""
    expected_size: int | None = None
    etag: str = ""
    original_name: str = ""
    state: str = FileState.QUEUED.value
    error: str = ""
    generation: int = 1


@dataclasses.dataclass(frozen=True)
class PendingRequests:
    """What an owner must apply to its runs, as of the last `record`."""

    cancelled: frozenset[UUID]
    """Jobs to cancel."""
    paused: frozenset[UUID]
    """Jobs to pause."""
    lost: frozenset[UUID]
    """Jobs that another process owns or has ended."""
    files_total: Mapping[UUID, int] = dataclasses.field(default_factory=dict)
    """Of the owner's jobs that are listed to their end."""


# Creation.


def create_once(
    request: DownloadRequest, owner: JobOwner | None, order: IdempotentOrder
) -> tuple[DownloadJob, bool]:
    """Return an order's job, and True if this call created it.

    Raise `KeyReused` or `QuotaExceeded`.
    """
    facts = {"idempotency_key": order.key, "idempotency_digest": order.digest}
    try:
        return create(request, owner, order.creator, **facts), True
    except (
        IntegrityError,
        QuotaExceeded,
    ):  # another request with the same key may have been faster
        job = order.existing_job()
        if job is None:
            raise
        return job, False


@transaction.atomic
def create(
    request: DownloadRequest, owner: JobOwner | None, creator: Actor = CODE, **facts: Any
) -> DownloadJob:
    """Create a queued job and its files; `owner`, if given, is responsible for it from now on.

    The job belongs to `creator`; raise `QuotaExceeded`. `facts`: further columns of the job.
    """
    quota.reserve(creator.key, None if request.source else len(request.urls))
    moment = now()
    files = _new_files(request)
    job = DownloadJob.objects.create(
        threads=request.threads,
        extra_origins=sorted(request.extra_origins),
        owner=None if owner is None else owner.token,
        owner_pid=None if owner is None else owner.pid,
        heartbeat_at=moment,
        created_at=moment,
        files_total=len(request.urls),
        files_renamed=sum(bool(file.original_name) for file in files),
        portable_names=request.portable_names,
        webhook=request.webhook,
        title=request.title,
        limit_rate=request.limit_rate,
        parts=request.parts,
        source=request.source,
        include=list(request.names_wanted.include),
        exclude=list(request.names_wanted.exclude),
        listed_all=not request.source,
        creator=creator.key,
        created_by=creator.name[:MAX_NAME],
        **facts,
    )
    insert_files(job.id, files)
    audit.record(job.id, audit.CREATE, creator)
    return job


def _new_files(request: DownloadRequest) -> list[NewFile]:
    rules = NameRules(portable=request.portable_names)
    wished, originals = request.names, request.originals
    if not wished:
        wished = tuple(rules.from_url(url) for url in request.urls)
        originals = tuple(map(original_name, request.urls, wished))
    names = rules.number_duplicates(wished)
    checksums = request.checksums or ("",) * len(request.urls)
    originals = tuple(
        original or ("" if name == wish else wish)
        for original, name, wish in zip(originals, names, wished, strict=True)
    )
    files = zip(request.urls, names, originals, checksums, strict=True)
    return [
        NewFile(at, url, name, rules.key(name), checksum, original_name=original)
        for at, (url, name, original, checksum) in enumerate(files)
    ]


def insert_files(job_id: UUID, files: Sequence[NewFile]) -> None:
    """Insert the rows of new files; columns that `NewFile` lacks have their defaults.

    A request waits for this. `bulk_create` takes twice as long, because it prepares each value of each
    row: 14 columns of up to 10,000 rows. One statement per row would release the interpreter's lock as often,
    and wait for it whenever other threads are busy.
    """
    fields = [it for it in DownloadFile._meta.concrete_fields if not it.primary_key]  # noqa: SLF001 (Django's documented API)
    same = {
        field.attname: field.get_db_prep_save(
            job_id if field.attname == "job_id" else field.get_default(), connection
        )
        for field in fields
        if field.attname not in NewFile._fields
    }
    defaults = tuple(same.values())
    columns = ", ".join([*NewFile._fields, *same])
    row = f"({', '.join(['%s'] * len(fields))})"
    most = min(_INSERT_ROWS, connection.ops.bulk_batch_size(fields, files))
    with connection.cursor() as cursor:
        for first in range(0, len(files), most):
            batch = files[first : first + most]
            cursor.execute(
                f"INSERT INTO {DownloadFile._meta.db_table} ({columns}) "  # noqa: S608, SLF001 (our own names)
                f"VALUES {', '.join([row] * len(batch))}",
                [value for file in batch for value in (*file, *defaults)],
            )


# Runs.


def waiting(owner: JobOwner) -> list[DownloadJob]:
    """Return the owner's queued jobs, oldest first."""
    found = DownloadJob.objects.filter(owner=owner.token, state=JobState.QUEUED)
    return list(found.order_by("created_at", "id"))


def start(
    job: DownloadJob, owner: JobOwner, root: Path | None, *, stream: bool = False
) -> Plan | None:
    """Move a job from queued to running and return its plan; `None` if it may not start any more.

    Its fencing token grows, so that an earlier run still writes only to files of other names. `stream`:
    the plan has no items; a feeder passes them to the run. `root` may be `None` for a job with a
    destination of its own.
    """
    moment = now()
    settings = conf()
    free = owned_by(job.id, owner).filter(cancel_requested=False, pause_requested=False)
    with transaction.atomic():
        moved = free.filter(state__in=sources(JobState.RUNNING)).update(
            state=JobState.RUNNING,
            started_at=Coalesce("started_at", Value(moment)),
            heartbeat_at=moment,
            token=F("token") + 1,
            generation=F("generation") + 1,
        )
        if not moved:
            return None
        audit.record_run(job, audit.BEGIN, owner.pid)
    job.refresh_from_db()
    parts = job.parts or settings.download_parts
    return Plan(
        job=job.id,
        directory=destination_of(job, root),
        threads=_useful_threads(job, parts),
        parts=parts,
        origins=frozenset(settings.download_origins) | frozenset(job.extra_origins),
        items=() if stream else unfinished_items(job.id),
        networks=read_networks(settings.download_networks),
        headers=settings.download_headers,
        proxied=settings.download_proxy,
        token=job.token,
        more=stream,
        resumable=True,
        own=not job.destination,
        retries=retry_policy(settings),
        max_bytes=settings.download_max_job_bytes,
        max_s=settings.download_max_job_s,
        max_rate=job.limit_rate,
        done=progress_of(job),
    )


def _useful_threads(job: DownloadJob, parts: int) -> int:
    if not job.listed_all:
        return job.threads
    return max(1, min(job.threads, job.files_total * parts))


def retry_policy(settings: Conf) -> RetryPolicy:
    """Return the retry policy of the settings."""
    return RetryPolicy(
        settings.download_tries, max_retry_after_s=settings.download_max_retry_after_s
    )


def unfinished_items(job_id: UUID, after: int = -1, limit: int | None = None) -> tuple[Item, ...]:
    """Return the unfinished files of a job in order, from the first one after a position."""
    rows = DownloadFile.objects.filter(
        job=job_id, state__in=UNFINISHED_FILE, position__gt=after
    ).order_by("position")
    fields = ("id", "position", "url", "name", "expected_checksum", "expected_size", "etag")
    return tuple(Item(*row) for row in rows.values_list(*fields)[:limit])


@transaction.atomic
def record(
    owner: JobOwner,
    changes: Mapping[UUID, tuple[list[FileReport], JobProgress]],
    tokens: Mapping[UUID, int] | None = None,
) -> PendingRequests:
    """Write the progress of the owner's runs and a heartbeat for all its jobs, in one transaction.

    `tokens`: the runs' fencing tokens. A job with another token had another owner in between, even
    if it is this owner's again: that run has lost it.
    """
    moment = now()
    owned_now = DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB)
    owned_now.update(heartbeat_at=moment)  # the first statement, because it locks
    jobs = {job.id: job for job in owned_now}
    ours = {
        job_id
        for job_id in changes
        if job_id in jobs and jobs[job_id].token == (tokens or {}).get(job_id, jobs[job_id].token)
    }
    for job_id, (reports, progress) in changes.items():
        if job_id in ours and (reports or not has_progress(jobs[job_id], progress)):
            write_reports(reports, bump_generation(job_id, **dataclasses.asdict(progress)))
    return PendingRequests(
        cancelled=frozenset(job_id for job_id, job in jobs.items() if job.cancel_requested),
        paused=frozenset(job_id for job_id, job in jobs.items() if job.pause_requested),
        lost=frozenset(changes.keys() - ours),
        files_total={job_id: job.files_total for job_id, job in jobs.items() if job.listed_all},
    )


# Directories.


def destination_of(job: DownloadJob, root: Path | None) -> Path:
    """Return where a job's files are saved: its own destination, or its directory under the root."""
    if job.destination:
        return Path(job.destination)
    if root is None:
        raise AssertionError(f"job {job.id} has neither destination nor DOWNLOAD_ROOT")
    return root / str(job.id)


def run_directory_of(job: DownloadJob, token: int) -> RunDirectory | None:
    """Return the directory of the run with that token; `None` if `DOWNLOAD_ROOT` is needed and not set."""
    root = conf().download_root
    if root is None and not job.destination:
        return None
    return RunDirectory(destination_of(job, root), job.id.hex[:12], token)


def published_files(job: DownloadJob, run_directory: RunDirectory) -> list[FileReport]:
    """Return the files that were published although no run has recorded them.

    Call `RunDirectory.take_over` first: then no earlier run publishes more.
    """
    notes = Journal(run_directory.path, run_directory.token).read()
    found = []
    for item in unfinished_items(job.id):
        noted = notes.matching(item.position, run_directory.directory / item.name)
        if noted is not None:
            found.append(FileReport(item, FileState.SUCCEEDED, noted.size, "", noted.sha256))
    return found
