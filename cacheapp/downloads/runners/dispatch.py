"""Hands a job to whoever is to run it: the coordinator of this process, or Celery.

With Celery a job has no owner until a task adopts it (`serving`). That a task is sent twice, or comes
a second time, is harmless: of all who would adopt a job, one does. That none comes is what has to be
said: who cannot reach the broker is told, and may ask again.
"""

from uuid import UUID

from cacheapp.conf import conf
from cacheapp.downloads.jobs.repository import Owner
from cacheapp.downloads.runners.coordinator import host
from cacheapp.errors import CacheappError

TASK = "cacheapp.run_download"


class NotHanded(CacheappError):
    """The broker did not take the job; nobody runs it."""


def owner_to_be() -> Owner | None:
    """Return who owns a job that is written now: this process, or nobody yet."""
    return None if conf().download_runner == "celery" else host().owner


def hand(job_id: UUID) -> None:
    """Have a job begun soon; raise `NotHanded`."""
    if conf().download_runner != "celery":
        host().wake()
        return
    import celery  # noqa: PLC0415 (an extra)
    from kombu.exceptions import KombuError, OperationalError  # noqa: PLC0415 (the same)

    try:
        celery.current_app.send_task(TASK, args=[str(job_id)], ignore_result=True)
    except (OperationalError, KombuError, OSError) as exc:
        raise NotHanded(f"Celery's broker does not take the job: {exc}") from exc
