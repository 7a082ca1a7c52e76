"""Hands a job to whoever is to run it: the coordinator of this process, or Celery.

With Celery a job has no owner until a task adopts it (`serving`). That a task is sent twice, or comes
a second time, is harmless: of all who would adopt a job, one does. That none comes is what has to be
said: who cannot reach the broker is told, and may ask again.
"""

from uuid import UUID

from cacheapp.conf import conf
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.runners.coordinator import coordinator
from cacheapp.errors import CacheappError

TASK = "cacheapp.run_download"


class BrokerUnavailable(CacheappError):
    """The broker did not take the job; nobody runs it."""


def initial_owner() -> JobOwner | None:
    """Return who owns a job that is written now: this process, or nobody yet."""
    return None if conf().download_runner == "celery" else coordinator().owner


def submit(job_id: UUID) -> None:
    """Have a job begun soon; raise `BrokerUnavailable`."""
    if conf().download_runner != "celery":
        coordinator().wake()
        return
    import celery  # noqa: PLC0415 (an extra)
    from kombu.exceptions import KombuError, OperationalError  # noqa: PLC0415 (the same)

    try:
        celery.current_app.send_task(TASK, args=[str(job_id)], ignore_result=True)
    except (OperationalError, KombuError, OSError) as exc:
        raise BrokerUnavailable(f"Celery's broker does not take the job: {exc}") from exc
