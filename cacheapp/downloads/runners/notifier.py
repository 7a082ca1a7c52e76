"""Delivers the notifications that a job has ended: webhooks, and the signal `download_ended`.

Any process does it: a coordinator starts a thread when one is due (`Notifier`), and a terminal or a
task delivers those of its own job (`deliver`). What a killed process had claimed becomes due again.
"""

import datetime as dt
import json
import logging
import random
import threading
import uuid
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import Conf, conf
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.http.redaction import redacted
from cacheapp.downloads.http.url_policy import UrlRefused
from cacheapp.downloads.http.webhooks import WebhookSender
from cacheapp.downloads.jobs import notifications
from cacheapp.downloads.jobs.models import DownloadJob, DownloadNotification
from cacheapp.downloads.jobs.rows import now
from cacheapp.downloads.plan import RetryPolicy
from cacheapp.downloads.signals import download_ended

logger = logging.getLogger(__name__)

_THREADS = 4
_CLAIM_FACTOR = 3
"""A claim lasts this many times `DOWNLOAD_WEBHOOK_S`: the lookup of a host name may take longer."""
_FIRST_WAIT_S, _MAX_WAIT_S = 2.0, 6 * 3600.0


class Notifier:
    """The threads that deliver. For use by one thread."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def deliver_due(self) -> None:
        """Start a thread, one of at most `_THREADS`, if a notification is due."""
        if not notifications.are_wanted():
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= _THREADS or not notifications.is_due(now()):
            return
        thread = threading.Thread(target=_deliver_beside, name="downloads-notifier", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the system allows no thread now: the next round tries again
            logger.warning("downloads: no thread for notifications yet: %s", exc)
        else:
            self._threads.append(thread)


def deliver(job_id: UUID | None = None) -> None:
    """Make one attempt at each notification that is due; `job_id`: of this job alone."""
    if not notifications.are_wanted():
        return
    settings = conf()
    while found := notifications.claim_due(
        now(), _CLAIM_FACTOR * settings.download_webhook_s, job_id
    ):
        _attempt(found, settings)


def due_in_s(job_id: UUID) -> float | None:
    """Return the seconds until a notification of a job is due; `None` if none is pending."""
    if not notifications.are_wanted():
        return None
    first = notifications.deliverable(job_id).order_by("due_at").first()
    return None if first is None else max(1.0, (first.due_at - now()).total_seconds())


def _deliver_beside() -> None:
    try:
        deliver()
    except DatabaseError as exc:  # locked or gone: what was claimed becomes due again
        logger.warning("downloads: notifications not delivered: %s", exc)
    except Exception:
        logger.exception("downloads: error in the notifier")
    finally:
        connection.close()


def _attempt(notification: DownloadNotification, settings: Conf) -> None:
    """Make a claimed attempt and record its outcome."""
    if notification.tries > settings.download_webhook_tries:
        error = TransferFailed("the process of the last attempt ended")
        _record_failure(notification, error, settings)
        return
    if not notification.url:
        _send_signal(notification)
        notifications.record_delivered(notification, now())
        return
    sender = WebhookSender(
        settings.download_webhooks,
        read_networks(settings.download_networks),
        settings.download_webhook_s,
        proxied=settings.download_proxy,
    )
    body = notification.body.encode()
    try:
        sender.send(notification.url, str(notification.id), int(clock.wall_s()), body)
    except (TransferFailed, UrlRefused) as exc:
        _record_failure(notification, exc, settings)
        return
    notifications.record_delivered(notification, now())
    logger.info(
        *("job %s: %s notified", notification.job_id, redacted(notification.url)),
        extra={"event": "webhook_delivered", "job": str(notification.job_id)},
    )


def _send_signal(notification: DownloadNotification) -> None:
    data = json.loads(notification.body)["data"]
    download_ended.send_robust(
        sender=DownloadJob,
        event_id=notification.id,
        job_id=uuid.UUID(data["id"]),
        state=data["state"],
        data=data,
    )


def _record_failure(
    notification: DownloadNotification, exc: TransferFailed | UrlRefused, settings: Conf
) -> None:
    policy = RetryPolicy(
        settings.download_webhook_tries, first_wait_s=_FIRST_WAIT_S, max_wait_s=_MAX_WAIT_S
    )
    wait_s = None
    if getattr(exc, "retryable", False):
        wait_s = policy.retry_in_s(notification.tries, random.random(), None)  # noqa: S311
    due_at = None if wait_s is None else now() + dt.timedelta(seconds=wait_s)
    notifications.record_failure(notification, str(exc), due_at)
    logger.warning(
        "job %s: %s not notified, attempt %d: %s; %s",
        *(notification.job_id, redacted(notification.url), notification.tries, exc),
        "given up" if wait_s is None else f"next attempt in {wait_s:.0f} s",
        extra={"event": "webhook_failed", "job": str(notification.job_id)},
    )
