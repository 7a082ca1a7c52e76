"""Determines which process owns a job, and which jobs have lost their owner.

Invariant: a job has at most one owner. Each change of owner raises the fencing token, in one
compare-and-set on everything that shows whether the old owner is alive: owner, token, heartbeat
(`unchanged`). If several processes try, one succeeds, on every database that evaluates the condition
of an UPDATE under the row's lock. The former owner writes nothing to the database after that
(`owned_by`), and publishes no file (`storage.run_directory`).

Each process judges by its own monotonic clock whether an owner is alive (`OrphanDetector`): the
heartbeat must change within a given time. No two clocks are compared, so a step of the wall clock
orphans no job.
"""

import dataclasses
import datetime as dt
import os
import uuid
from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q, QuerySet

from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.rows import now
from cacheapp.downloads.states import OWNED_JOB


@dataclasses.dataclass(frozen=True)
class JobOwner:
    """A process that runs jobs."""

    token: UUID
    """Unlike the process id, never used again."""
    pid: int


def new_owner() -> JobOwner:
    """Return a new identity for this process."""
    return JobOwner(uuid.uuid4(), os.getpid())


def owned_by(job_id: UUID, owner: JobOwner, token: int | None = None) -> QuerySet[DownloadJob]:
    """Return the job if it is queued or running, has this owner, and has that fencing token."""
    found = DownloadJob.objects.filter(id=job_id, owner=owner.token, state__in=OWNED_JOB)
    return found if token is None else found.filter(token=token)


def has_token(job_id: UUID, owner: JobOwner, token: int) -> bool:
    """Return whether the job still has this owner and fencing token."""
    return owned_by(job_id, owner, token).exists()


def send_heartbeat(owner: JobOwner) -> bool:
    """Record that an owner is alive; return False, and write nothing, if it owns no job."""
    jobs = DownloadJob.objects.filter(owner=owner.token, state__in=OWNED_JOB)
    return jobs.exists() and bool(jobs.update(heartbeat_at=now()))


def unchanged(job: DownloadJob) -> QuerySet[DownloadJob]:
    """Return the queued or running job if neither its state nor its heartbeat has changed since it was read."""
    return DownloadJob.objects.filter(
        Q(owner=job.owner) if job.owner is not None else Q(owner__isnull=True),
        id=job.id,
        state=job.state,
        token=job.token,
        heartbeat_at=job.heartbeat_at,
        cancel_requested=job.cancel_requested,
    ).filter(state__in=OWNED_JOB)


def unfinished_jobs() -> list[DownloadJob]:
    """Return all queued and running jobs, oldest first."""
    return list(DownloadJob.objects.filter(state__in=OWNED_JOB).order_by("created_at", "id"))


def is_orphan(job: DownloadJob) -> bool:
    """Return whether a queued or running job has had no heartbeat for `DOWNLOAD_HEARTBEAT_S`.

    This compares wall clocks, which is enough for display. A process that adopts jobs uses an
    `OrphanDetector`.
    """
    age = now() - job.heartbeat_at
    return job.state in OWNED_JOB and age.total_seconds() > conf().download_heartbeat_s


@dataclasses.dataclass
class _Seen:
    token: int
    heartbeat_at: dt.datetime
    since_s: float


class OrphanDetector:
    """Remembers when each job's heartbeat last changed. For use by one thread."""

    def __init__(self) -> None:
        self._seen: dict[UUID, _Seen] = {}

    def orphans(
        self, jobs: Iterable[DownloadJob], now_s: float, patience_s: float
    ) -> list[DownloadJob]:
        """Return the queued and running jobs that no process runs; `jobs` must be freshly read."""
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
