"""Sends a new task for each job after its worker was killed, for `DOWNLOAD_RUNNER = "tasks"`.

Each Gunicorn worker has one such thread; it runs no job itself. It also delivers the notifications
that a task could not deliver.

Invariant: of all supervisors, one sends a task for a lost job: it adopts the job by compare-and-set
and releases it, in one transaction with the task. If the backend refuses the task, nothing has
changed, and the next round tries again.
"""

import logging
import os
import random
import threading

from django.db import DatabaseError, connection, transaction

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.jobs import ownership, transitions
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import OrphanDetector
from cacheapp.downloads.runners import dispatch
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.runners.notifier import Notifier

logger = logging.getLogger(__name__)

_CHECKS_PER_HEARTBEAT = 3


class TaskSupervisor:
    """The supervisor of one process; its fields belong to its thread."""

    def __init__(self) -> None:
        self._owner = ownership.new_owner()
        self._orphan_detector = OrphanDetector()
        self._notifier = Notifier()

    def run(self) -> None:
        """Look for lost jobs until the process ends."""
        pause = threading.Event()
        while True:
            period_s = conf().download_heartbeat_s / _CHECKS_PER_HEARTBEAT
            pause.wait(period_s * random.uniform(0.8, 1.0))  # noqa: S311 (spread over the workers)
            try:
                self.look()
            except DatabaseError as exc:  # locked or gone: the next round looks again
                logger.warning("downloads: jobs not read: %s", exc)
            except Exception:
                logger.exception("downloads: error in the supervisor of tasks")
            finally:
                connection.close()

    def look(self) -> None:
        """Send a task for each job that is lost, and deliver what is due."""
        self._notifier.deliver_due()
        # Jobs without an owner wait in the queue of the backend.
        jobs = [job for job in ownership.unfinished_jobs() if job.owner and not job.destination]
        patience_s = conf().download_heartbeat_s
        for job in self._orphan_detector.orphans(jobs, clock.monotonic_s(), patience_s):
            try:
                self._submit_again(job)
            except BrokerUnavailable as exc:
                logger.warning("job %s: is lost, and not submitted yet: %s", job.id, exc)

    @transaction.atomic
    def _submit_again(self, job: DownloadJob) -> None:
        if transitions.adopt(job, self._owner):
            job.refresh_from_db()
            transitions.release_unchanged(job, self._owner)
            dispatch.submit(job.id)


_started_in = 0  # the pid of the process whose thread was started


def start_supervisor() -> None:
    """Start the supervisor of this process, once."""
    global _started_in  # noqa: PLW0603 (one per process)
    if _started_in != os.getpid():
        _started_in = os.getpid()
        thread = threading.Thread(
            target=TaskSupervisor().run, name="downloads-supervisor", daemon=True
        )
        thread.start()
