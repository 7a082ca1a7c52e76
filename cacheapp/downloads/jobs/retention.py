"""Removes records of jobs that ended long ago, and partial files without an unfinished job.

Complete files are never removed, and nothing of an unfinished job, however old. Several processes may
prune at once.
"""

import contextlib
import dataclasses
import datetime as dt
import logging
import os
import threading
from pathlib import Path
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.jobs import audit, notifications
from cacheapp.downloads.jobs.actors import RETENTION, Actor
from cacheapp.downloads.jobs.deletion import delete_record
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.rows import now
from cacheapp.downloads.states import FINISHED_JOB, UNFINISHED_JOB
from cacheapp.downloads.storage.run_directory import removable_directories, remove_directory

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What was removed."""

    jobs: int
    partials: int
    """Directories of runs that no job can resume."""


def prune(older_than_s: float, by: Actor = RETENTION) -> Pruned:
    """Remove finished jobs, and partial files of no unfinished job, that are older than that."""
    root = conf().download_root
    partials = 0 if root is None else _prune_partials(root, clock.wall_s() - older_than_s)
    before = now() - dt.timedelta(seconds=older_than_s)
    jobs = _prune_jobs(before, by)
    notifications.prune(before)
    if jobs or partials:
        logger.info(
            *("pruned %d finished jobs and the partial files of %d runs", jobs, partials),
            extra={"event": "jobs_pruned", "jobs": jobs, "partials": partials},
        )
    return Pruned(jobs, partials)


def prune_beside(older_than_s: float | None) -> None:
    """Prune jobs, and the audit trail, in a thread: it may take longer than the heartbeat interval.

    `None`: only the audit trail.
    """

    def pruning() -> None:
        try:
            if older_than_s is not None:
                prune(older_than_s)
            audit.prune()
        except Exception:
            logger.exception("pruning downloads")
        finally:
            connection.close()

    try:
        threading.Thread(target=pruning, name="downloads-pruner", daemon=True).start()
    except RuntimeError as exc:  # the system allows no thread now: the next time prunes more
        logger.warning("downloads not pruned: %s", exc)


def _prune_jobs(before: dt.datetime, by: Actor) -> int:
    """Remove the records one by one: a job may have 10,000 files, and other writers wait during that."""
    old = DownloadJob.objects.filter(state__in=FINISHED_JOB, finished_at__lt=before)
    # The query runs again for each: a job may have been queued again since.
    return sum(_prune_job(old, job, by) for job in list(old.only("id", "destination")))


def _prune_job(old: QuerySet[DownloadJob], job: DownloadJob, by: Actor) -> bool:
    """Remove a job, and its partial files if they are outside `DOWNLOAD_ROOT`."""
    is_deleted = delete_record(old.filter(id=job.id), by)
    if is_deleted and job.destination:
        for path in removable_directories(Path(job.destination), job.id.hex[:12]):
            remove_directory(path)
    return is_deleted


def _prune_partials(root: Path, before_s: float) -> int:
    """Remove the directories of runs, unchanged since then, of jobs that are finished or removed.

    The age is read before the database: a job that is resumed in between has a new directory under
    another name, and only the names read first are removed.
    """
    try:
        places = [(Path(entry.path), entry.name) for entry in os.scandir(root) if entry.is_dir()]
    except FileNotFoundError:
        return 0
    pruned = 0
    for place, name in places:
        old = [path for path in removable_directories(place) if _newest_s(path) < before_s]
        if not old or _is_unfinished(name):
            continue
        pruned += sum(map(remove_directory, old))
        with contextlib.suppress(OSError):  # it holds complete files, or is removed already
            place.rmdir()
    return pruned


def _newest_s(path: Path) -> float:
    try:
        times = [path.stat().st_mtime, *(entry.stat().st_mtime for entry in os.scandir(path))]
    except OSError:
        return float("inf")  # taken over or removed just now, or not readable
    return max(times)


def _is_unfinished(name: str) -> bool:
    """Return whether a directory under the root is of an unfinished job, or of none by its name."""
    try:
        job_id = UUID(name)
    except ValueError:
        return True
    return DownloadJob.objects.filter(id=job_id, state__in=UNFINISHED_JOB).exists()
