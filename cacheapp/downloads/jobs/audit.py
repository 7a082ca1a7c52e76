"""Records every action on a job and its actor, and each process that ran it, in the transaction of the change.

Entries are never changed, outlive the job, and are pruned after `DOWNLOAD_AUDIT_RETENTION_S`. An
action that changed nothing (it was refused, or repeated) is not recorded.
"""

import datetime as dt
import functools
import logging
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from cacheapp.conf import conf
from cacheapp.downloads.jobs.actors import MAX_NAME, Actor
from cacheapp.downloads.jobs.models import AuditEntries, AuditEntry, DownloadJob
from cacheapp.downloads.jobs.rows import now

WORKER = "worker"
logger = logging.getLogger(__name__)

CREATE, PAUSE, RESUME, CANCEL = "create", "pause", "resume", "cancel"
RETRY, DELETE, RENAME = "retry", "delete", "rename"
BEGIN, ADOPT = "begin", "adopt"
"""Of the processes that run a job; all others are of clients."""


def record(job_id: UUID, action: str, by: Actor, detail: str = "") -> None:
    """Record an action on a job; the caller opens the transaction, and removes the job after it."""
    creators = DownloadJob.objects.filter(id=job_id).values_list("creator", flat=True)
    AuditEntry.objects.create(
        job=job_id,
        job_creator=creators.first() or "",
        at=now(),
        action=action,
        actor=by.key,
        actor_name=by.name[:MAX_NAME],
        via=by.via,
        detail=detail,
    )
    line = functools.partial(
        logger.info,
        *("job %s: %s by %s (%s)", job_id, action, by.name, by.via),
        extra={"event": "job_action", "job": str(job_id), "action": action, "actor": by.name},
    )
    transaction.on_commit(line)


def record_run(job: DownloadJob, action: str, pid: int, detail: str = "") -> None:
    """Record that a process began or took over a job, in the caller's transaction; the log has it already."""
    AuditEntry.objects.create(
        job=job.id,
        job_creator=job.creator,
        at=now(),
        action=action,
        actor_name=f"worker {pid}",
        via=WORKER,
        detail=detail,
    )


def entries_of(job: DownloadJob) -> QuerySet[AuditEntry]:
    """Return the entries of a job, newest first."""
    return AuditEntry.objects.filter(job=job.id).order_by("-at", "-id")


def visible_entries(actor: Actor) -> QuerySet[AuditEntry]:
    """Return the entries that an actor may see: those of its own jobs, or all."""
    entries: AuditEntries = AuditEntry.objects.all()
    if actor.manages_all:
        return entries
    return entries.filter(job_creator=actor.key) if actor.key else entries.none()


def prune() -> int:
    """Remove entries older than `DOWNLOAD_AUDIT_RETENTION_S`; return how many."""
    retention_s = conf().download_audit_retention_s
    if retention_s is None:
        return 0
    return AuditEntry.objects.all().prune(now() - dt.timedelta(seconds=retention_s))
