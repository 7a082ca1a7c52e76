"""What the database knows about downloads: how a job is made, and what its owner writes.

Invariants, each held by a transaction:
- A job is moved by its owner, by compare-and-set on "unfinished and still mine" (`mine`), or by who
  makes it his (`adopting`, `pausing.take`; of a paused one `ending.cancel`); so exactly one ends it. A
  run says its token as well: the job may have been through other hands, and be the same process's
  again, in a later run.
- The rows of a job's files are written in the same transaction as a write to the job that found it
  unfinished: a late owner writes nothing.
- In a finished job no file is unfinished.
- Each change raises the job's generation (see `rows`).

SQLite takes the write lock when a transaction begins (see the settings); elsewhere the row lock of
the first UPDATE or `select_for_update` serves.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Coalesce

from cacheapp.conf import conf
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.jobs import wakeup
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.rows import (
    NewFile,
    close,
    grow,
    insert,
    now,
    progress_of,
    same,
    write,
)
from cacheapp.downloads.plan import FileReport, Item, JobProgress, Plan, RetryPolicy
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import (
    OWNED_JOB,
    UNFINISHED_FILE,
    FileState,
    JobState,
    outcome,
    sources,
)
from cacheapp.downloads.storage.filenames import name_key, number_duplicates, plan_names
from cacheapp.downloads.storage.journal import Journal
from cacheapp.downloads.storage.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class JobOwner:
    """A process that runs jobs."""

    token: UUID
    pid: int


@dataclasses.dataclass(frozen=True)
class PendingRequests:
    """What the owner learns when it records its progress."""

    cancelled: frozenset[UUID]
    """Jobs whose cancellation was asked for."""
    paused: frozenset[UUID]
    """Jobs that are to pause."""
    lost: frozenset[UUID]
    """Jobs that somebody else has ended meanwhile."""


def directory_of(job_id: UUID, root: Path) -> Path:
    """Return where a job's files arrive."""
    return root / str(job_id)


def place_of(job: DownloadJob, root: Path | None) -> Path:
    """Return where a job's files arrive: its own destination, or its directory under the root."""
    if job.destination:
        return Path(job.destination)
    if root is None:
        raise AssertionError(f"job {job.id} has neither destination nor DOWNLOAD_ROOT")
    return directory_of(job.id, root)


@transaction.atomic
def create(order: DownloadRequest, owner: JobOwner | None, **facts: Any) -> DownloadJob:
    """Write a queued job and its files; the owner, if there is one, answers for it from now on.

    `facts`: what else is to be written of the job, such as who ordered it.
    """
    moment = now()
    job = DownloadJob.objects.create(
        threads=order.threads,
        extra_origins=sorted(order.extra_origins),
        owner=None if owner is None else owner.token,
        owner_pid=None if owner is None else owner.pid,
        heartbeat_at=moment,
        created_at=moment,
        files_total=len(order.urls),
        source=order.source,
        listed_all=not order.source,
        **facts,
    )
    names = number_duplicates(order.names) if order.names else plan_names(order.urls)
    checksums = order.checksums or ("",) * len(order.urls)
    files = enumerate(zip(order.urls, names, checksums, strict=True))
    insert(
        job.id, [NewFile(at, url, name, name_key(name), sum_) for at, (url, name, sum_) in files]
    )
    return job


def waiting(owner: JobOwner) -> list[DownloadJob]:
    """Return the owner's queued jobs, oldest first."""
    found = DownloadJob.objects.filter(owner=owner.token, state=JobState.QUEUED)
    return list(found.order_by("created_at", "id"))


def start(
    job: DownloadJob, owner: JobOwner, root: Path | None, *, stream: bool = False
) -> Plan | None:
    """Move a job from queued to running and return what is to be done; `None` if it has ended.

    Its fencing token grows: what an earlier run still writes goes to files of another name.
    `stream`: the plan has no items; the run is fed with what `unfinished` gives. `root` may be
    `None` for a job with a destination of its own.
    """
    moment = now()
    settings = conf()
    free = mine(job.id, owner).filter(cancel_requested=False, pause_requested=False)
    moved = free.filter(state__in=sources(JobState.RUNNING)).update(
        state=JobState.RUNNING,
        started_at=Coalesce("started_at", Value(moment)),
        heartbeat_at=moment,
        token=F("token") + 1,
        generation=F("generation") + 1,
    )
    if not moved:
        return None
    job.refresh_from_db()
    return Plan(
        job=job.id,
        directory=place_of(job, root),
        threads=min(job.threads, job.files_total) if job.listed_all else job.threads,
        origins=frozenset(settings.download_origins) | frozenset(job.extra_origins),
        items=() if stream else unfinished(job.id),
        networks=read_networks(settings.download_networks),
        token=job.token,
        more=stream,
        resumable=True,
        own=not job.destination,
        retries=RetryPolicy(tries=settings.download_tries),
        max_bytes=settings.download_max_job_bytes,
        max_s=settings.download_max_job_s,
        done=progress_of(job),
    )


def unfinished(job_id: UUID, after: int = -1, limit: int | None = None) -> tuple[Item, ...]:
    """Return the files of a job that are still to be fetched, in order, behind a position."""
    rows = DownloadFile.objects.filter(
        job=job_id, state__in=UNFINISHED_FILE, position__gt=after
    ).order_by("position")
    fields = ("id", "position", "url", "name", "expected_sha256", "expected_size", "etag")
    return tuple(Item(*row) for row in rows.values_list(*fields)[:limit])


@transaction.atomic
def record(
    owner: JobOwner,
    changes: Mapping[UUID, tuple[list[FileReport], JobProgress]],
    tokens: Mapping[UUID, int] | None = None,
) -> PendingRequests:
    """Write the progress of the owner's runs and a heartbeat for all its jobs, in one transaction.

    `tokens`: those of the runs. A job with another one went through other hands meanwhile, though it
    is ours again: that run has lost it.
    """
    moment = now()
    owned_now = DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB)
    owned_now.update(heartbeat_at=moment)  # the first statement: it takes the lock
    jobs = {job.id: job for job in owned_now}
    ours = {
        job_id
        for job_id in changes
        if job_id in jobs and jobs[job_id].token == (tokens or {}).get(job_id, jobs[job_id].token)
    }
    for job_id, (reports, progress) in changes.items():
        if job_id in ours and (reports or not same(jobs[job_id], progress)):
            write(reports, grow(job_id, **dataclasses.asdict(progress)))
    return PendingRequests(
        cancelled=frozenset(job_id for job_id, job in jobs.items() if job.cancel_requested),
        paused=frozenset(job_id for job_id, job in jobs.items() if job.pause_requested),
        lost=frozenset(changes.keys() - ours),
    )


@transaction.atomic
def finish(
    job_id: UUID,
    owner: JobOwner,
    reports: list[FileReport],
    progress: JobProgress,
    error: str,
    token: int | None = None,
) -> JobState | None:
    """End a job whose run is over; return how, or `None` if it is somebody else's, or another run's."""
    job = mine(job_id, owner, token).select_for_update().first()
    if job is None:
        return None
    write(reports, grow(job_id))
    # A listing that broke off, or has nothing, is no success, whatever became of its files.
    missing = int(not (job.listed_all and job.files_total))
    state = outcome(
        total=job.files_total + missing,
        done=progress.files_done,
        cancel_requested=job.cancel_requested,
    )
    if state is JobState.FAILED and not error:
        error = f"{progress.files_failed} of {job.files_total} files failed"
    close(job, state, "" if state is JobState.SUCCEEDED else error)
    return state


def request_cancel(job_id: UUID) -> bool:
    """Leave word that a job is to be cancelled; return whether it was queued or running."""
    asked = DownloadJob.objects.filter(id=job_id, state__in=OWNED_JOB)
    if asked.update(cancel_requested=True, generation=F("generation") + 1):
        transaction.on_commit(wakeup.notify)
        return True
    return False


def is_orphan(job: DownloadJob) -> bool:
    """Return whether the job is unfinished and its owner has given no sign of life for too long.

    By wall clocks: for a look from outside. Who adopts watches for himself (`adopting.OrphanDetector`).
    """
    age = now() - job.heartbeat_at
    return job.state in OWNED_JOB and age.total_seconds() > conf().download_heartbeat_s


def owned(owner: JobOwner) -> list[DownloadJob]:
    """Return the owner's unfinished jobs."""
    return list(DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB))


def mine(job_id: UUID, owner: JobOwner, token: int | None = None) -> QuerySet[DownloadJob]:
    """Return the job, if it is still the owner's to write, and has that token."""
    found = DownloadJob.objects.filter(id=job_id, owner=owner.token, state__in=OWNED_JOB)
    return found if token is None else found.filter(token=token)


def has_token(job_id: UUID, owner: JobOwner, token: int) -> bool:
    """Return whether the job is still the owner's, with that token."""
    return mine(job_id, owner, token).exists()


def run_directory_of(job: DownloadJob, token: int) -> RunDirectory | None:
    """Return the fence of a job's run; `None` where nobody says where downloads arrive."""
    root = conf().download_root
    if root is None and not job.destination:
        return None
    return RunDirectory(place_of(job, root), job.id.hex[:12], token)


def whole(job: DownloadJob, run_directory: RunDirectory) -> list[FileReport]:
    """Return the files that got their names though no run could record it; the fence is raised."""
    notes = Journal(run_directory.path, run_directory.token).read()
    found = []
    for item in unfinished(job.id):
        noted = notes.matching(item.position, run_directory.directory / item.name)
        if noted is not None:
            found.append(FileReport(item, FileState.SUCCEEDED, noted.size, "", noted.sha256))
    return found
