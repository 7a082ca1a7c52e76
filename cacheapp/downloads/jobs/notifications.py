"""The outbox of notifications that a job has ended.

Invariant: a notification is created in the transaction that ends the job, and stays pending until
an attempt was recorded as delivered, or the last one as failed. An attempt is claimed first, by
compare-and-set on `tries`: no two processes make it at once, unless it takes longer than the claim.
The claim of a process that was killed ends by itself. So a notification is delivered at least once,
after at most `DOWNLOAD_WEBHOOK_TRIES` attempts.
"""

import datetime as dt
import json
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from cacheapp.conf import conf
from cacheapp.downloads.jobs import wakeup
from cacheapp.downloads.jobs.actors import shown_source
from cacheapp.downloads.jobs.models import DownloadJob, DownloadNotification
from cacheapp.downloads.signals import download_ended
from cacheapp.downloads.states import NotificationState

EVENT = "download.ended"
_CANDIDATES = 20


def are_wanted() -> bool:
    """Return whether this process can deliver any notification."""
    return bool(conf().download_webhooks) or download_ended.has_listeners(DownloadJob)


def add(job_id: UUID) -> None:
    """Create the notifications of a job that just ended; the caller opens the transaction."""
    job = DownloadJob.objects.get(id=job_id)
    urls = [job.webhook] if job.webhook else []
    if download_ended.has_listeners(DownloadJob):
        urls.append("")
    moment = job.finished_at
    if not urls or moment is None:
        return
    body = _body(job, moment)
    DownloadNotification.objects.bulk_create(
        DownloadNotification(job=job, url=url, body=body, due_at=moment, created_at=moment)
        for url in urls
    )
    transaction.on_commit(wakeup.notify)


def claim_due(
    now: dt.datetime, claim_s: float, job_id: UUID | None = None
) -> DownloadNotification | None:
    """Claim an attempt at the notification that is due first; `None` if none is due.

    `claim_s`: for how many seconds. `job_id`: of this job alone.
    """
    due = deliverable(job_id).filter(due_at__lte=now)
    for found in due.order_by("due_at", "id")[:_CANDIDATES]:
        same = _pending().filter(id=found.id, tries=found.tries)
        if same.update(tries=F("tries") + 1, due_at=now + dt.timedelta(seconds=claim_s)):
            found.tries += 1
            return found
    return None


def is_due(now: dt.datetime) -> bool:
    """Return whether `claim_due` would find a notification."""
    return deliverable().filter(due_at__lte=now).exists()


def deliverable(job_id: UUID | None = None) -> QuerySet[DownloadNotification]:
    """Return the pending notifications that this process can deliver; `job_id`: of this job alone."""
    found = _pending() if job_id is None else _pending().filter(job=job_id)
    return found if download_ended.has_listeners(DownloadJob) else found.exclude(url="")


def _pending() -> QuerySet[DownloadNotification]:
    return DownloadNotification.objects.filter(state=NotificationState.PENDING)


def record_delivered(notification: DownloadNotification, now: dt.datetime) -> None:
    """Record that the receiver has accepted a notification."""
    _pending().filter(id=notification.id).update(
        state=NotificationState.DELIVERED, delivered_at=now, error=""
    )


def record_failure(
    notification: DownloadNotification, error: str, due_at: dt.datetime | None
) -> None:
    """Record a failed attempt, and when the next one is due; `None`: there is none."""
    claimed = _pending().filter(id=notification.id, tries=notification.tries)
    if due_at is None:
        claimed.update(error=error, state=NotificationState.FAILED)
    else:
        claimed.update(error=error, due_at=due_at)


def prune(before: dt.datetime) -> None:
    """Remove notifications that are older, except pending ones."""
    old = DownloadNotification.objects.filter(created_at__lt=before)
    old.exclude(state=NotificationState.PENDING).delete()


def _body(job: DownloadJob, moment: dt.datetime) -> str:
    def shown(value: dt.datetime | None) -> str | None:
        return None if value is None else value.isoformat(timespec="milliseconds")

    data = {
        "id": str(job.id),
        "state": job.state,
        "error": job.error,
        "source": shown_source(job.source, whole=False) or None,
        "files_total": job.files_total,
        "files_done": job.files_done,
        "files_failed": job.files_failed,
        "bytes_done": job.bytes_done,
        "created_at": shown(job.created_at),
        "started_at": shown(job.started_at),
        "finished_at": shown(moment),
    }
    return json.dumps({"type": EVENT, "timestamp": shown(moment), "data": data})
