"""Passes a new job to its runner: this process's coordinator, Celery, or Django's Tasks framework.

With the latter two, a job has no owner until a task adopts it (`celery_task`). A task that is sent
or delivered twice is harmless, because only one adopts the job. A broker that cannot be reached is
an error, which the client sees and may retry.
"""

import importlib.util
import logging
from typing import TYPE_CHECKING
from uuid import UUID

from cacheapp.conf import conf
from cacheapp.downloads.jobs import notifications
from cacheapp.downloads.jobs.actors import BROKER
from cacheapp.downloads.jobs.deletion import delete_record
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.errors import CacheappError
from cacheapp.extras import missing

if TYPE_CHECKING:
    from cacheapp.downloads.runners.coordinator import Coordinator

logger = logging.getLogger(__name__)

TASK = "cacheapp.run_download"


class BrokerUnavailable(CacheappError):
    """The broker did not accept the job; no process runs it."""


def initial_owner() -> JobOwner | None:
    """Return the owner of a job created now: this process, or `None` if a task will run it."""
    return _coordinator().owner if conf().download_runner == "worker" else None


def _coordinator() -> "Coordinator":
    from cacheapp.downloads.runners.coordinator import coordinator  # noqa: PLC0415 (loads the engine)

    return coordinator()


def submit_new(job_id: UUID) -> None:
    """Have a job that was just created started soon.

    If the broker does not accept it, remove it and raise `BrokerUnavailable`.
    """
    try:
        submit(job_id)
    except BrokerUnavailable as exc:
        # The task may have been delivered all the same. Then the job has an owner, and stays.
        if delete_record(DownloadJob.objects.filter(id=job_id, owner=None), BROKER):
            raise BrokerUnavailable(f"{exc}; nothing was started") from exc


def submit_notifications(job_id: UUID) -> None:
    """Have the notifications of a job that has ended without a process delivered soon.

    Coordinators of workers find them by themselves; otherwise, they need a task.
    """
    if conf().download_runner == "worker" or not notifications.deliverable(job_id).exists():
        return
    try:
        submit(job_id)
    except BrokerUnavailable as exc:
        logger.warning("job %s: its end is not notified: %s", job_id, exc)


def submit(job_id: UUID) -> None:
    """Have a job started soon; raise `BrokerUnavailable`."""
    runner = conf().download_runner
    if runner == "celery":
        _send_to_celery(job_id)
    elif runner == "tasks":
        _enqueue_task(job_id)
    else:
        _coordinator().wake()


def _enqueue_task(job_id: UUID) -> None:
    if importlib.util.find_spec("django.tasks") is None:
        raise BrokerUnavailable("DOWNLOAD_RUNNER = 'tasks' requires Django 6")
    from cacheapp.downloads.runners.django_task import run_download  # noqa: PLC0415 (Django 6)

    try:
        run_download.enqueue(str(job_id))
    except Exception as exc:
        # Each backend has errors of its own.
        raise BrokerUnavailable(f"the backend of tasks does not accept the job: {exc}") from exc


def _send_to_celery(job_id: UUID) -> None:
    if importlib.util.find_spec("celery") is None:
        raise BrokerUnavailable(f"DOWNLOAD_RUNNER = 'celery' {missing('celery', 'celery')}")
    import celery  # noqa: PLC0415 (an extra)
    from kombu.exceptions import KombuError, OperationalError  # noqa: PLC0415 (the same)

    try:
        celery.current_app.send_task(TASK, args=[str(job_id)], ignore_result=True)
    except (OperationalError, KombuError, OSError) as exc:
        raise BrokerUnavailable(f"Celery's broker does not accept the job: {exc}") from exc
