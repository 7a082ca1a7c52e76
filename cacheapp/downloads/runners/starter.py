"""Starts a process's queued jobs, or ends those that are not to begin: a part of its coordinator.

What goes wrong with one job is that job's affair: the others start all the same.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Container
from uuid import UUID

from django.db import DatabaseError

from cacheapp.conf import conf
from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.jobs import pause_resume, repository, termination
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.jobs.rows import progress_of
from cacheapp.downloads.plan import Plan
from cacheapp.downloads.runners.bucket_opener import BucketOpener, LimitedBucket, is_listed
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.sources.base import SourceRefused
from cacheapp.downloads.states import FileState
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

RELEASED = "released: its process ends"


class Starter:
    """Gives queued jobs their threads. For the coordinator's thread."""

    def __init__(
        self,
        owner: JobOwner,
        pool: ThreadPool[QueuedFile],
        wake: Callable[[], None],
        take_in: Callable[[JobRun], None],
    ) -> None:
        """`wake`: have the coordinator look again; `take_in`: it is told of a run before that starts."""
        self._owner = owner
        self._pool = pool
        self._wake = wake
        self._take_in = take_in
        self._bucket_opener = BucketOpener(wake)
        self._complaints: dict[UUID, str] = {}  # of waiting jobs, so that each is said once

    def start_waiting(self, running: Container[UUID], is_closed: Callable[[], bool]) -> bool:
        """Start queued jobs, oldest first, while there are threads; return whether any is left.

        A job that finds none has the next one that gets free, and from then on its fair share.
        `running`: the jobs of which a run is not over yet; `is_closed`: whether no more are to begin.
        """
        left = False
        waiting = repository.waiting(self._owner)
        self._bucket_opener.keep(job.id for job in waiting)
        kept = {job.id for job in waiting}
        self._complaints = {key: it for key, it in self._complaints.items() if key in kept}
        for job in waiting:
            if job.id in running:  # its earlier run has not ended yet
                left = True
            elif job.cancel_requested or job.pause_requested:
                self._rest(job)
            elif left or is_closed() or not self._pool.reserve() or not self._start(job, is_closed):
                left = True
        if not left:
            self._pool.reserve(wanted=False)
        return left

    def _rest(self, job: DownloadJob) -> None:
        if job.cancel_requested:
            self._end(job, "")
        else:
            pause_resume.pause(job.id, self._owner, [], progress_of(job), "", job.token)

    def _end(self, job: DownloadJob, error: str) -> None:
        """End a job; where its directory does not let us, at a later look."""
        try:
            termination.end(job, self._owner, error)
        except OSError as exc:
            if self._complaints.get(job.id) != str(exc):
                logger.warning("job %s: not ended yet: %s", job.id, exc)
            self._complaints[job.id] = str(exc)

    def _start(self, job: DownloadJob, is_closed: Callable[[], bool]) -> bool:
        """Give a queued job its threads; return whether it waits for none any more."""
        root = conf().download_root
        if root is None:
            self._end(job, "CACHEAPP['DOWNLOAD_ROOT'] is not set")
            return True
        source = None
        if is_listed(job):
            try:
                source = self._bucket_opener.take(job)
            except SourceRefused as exc:
                self._end(job, str(exc))
                return True
            if source is None:
                return False  # it wakes us when open
        plan = repository.start(job, self._owner, root, stream=source is not None)
        if plan is None:
            return False  # cancelled a moment ago: the next tick ends it
        self._begin(job, plan, source, is_closed)
        return True

    def _begin(
        self,
        job: DownloadJob,
        plan: Plan,
        source: LimitedBucket | None,
        is_closed: Callable[[], bool],
    ) -> None:
        """Run a job that is running in the database; what prevents that, whatever it is, ends it."""
        try:
            run = self._run(plan, source)
        except Exception as exc:
            logger.exception("starting job %s", job.id)
            self._end(job, _reason(exc))
            return
        self._take_in(run)
        try:
            run.start()
            if source is not None:
                Feeder(job, self._owner, run, source).start()
        except DatabaseError:  # it has not said whether the job is ours: nothing was begun
            run.stop(RELEASED, FileState.QUEUED, keep=True)
        except (OSError, RuntimeError) as exc:
            run.stop(_reason(exc))
            self._wake()
        except Exception as exc:
            logger.exception("starting job %s", job.id)
            run.stop(_reason(exc))
            self._wake()
        if is_closed():  # a moment ago, without having seen this run
            run.stop(RELEASED, FileState.QUEUED, keep=True)
        logger.info(
            *("job %s: %d files with %d threads", job.id, job.files_total, plan.threads),
            extra={"event": "job_started", "job": str(job.id)},
        )

    def _run(self, plan: Plan, source: LimitedBucket | None) -> JobRun:
        settings = conf()
        if source is not None:
            origins = source.trusted | {source.origin}
            plan = dataclasses.replace(plan, origins=origins, trusted=source.trusted)
        limits = TransferLimits(
            max_bytes=settings.download_max_bytes, min_free_bytes=settings.download_min_free_bytes
        )
        is_still_owner = functools.partial(repository.has_token, plan.job, self._owner, plan.token)
        sign = None if source is None else source.sign
        return JobRun(plan, limits, self._wake, self._pool, sign, is_still_owner=is_still_owner)


def _reason(exc: Exception) -> str:
    why: object = f"internal error: {type(exc).__name__}"
    if isinstance(exc, OSError | RuntimeError | CacheappError):
        why = getattr(exc, "strerror", None) or exc
    return f"could not be started: {why}"
