"""Runs one job in this process, for whoever waits at a terminal; what is not done stays to be resumed.

The main thread is the flusher: once a second it writes progress and a heartbeat, and learns whether
somebody has asked to pause or cancel the job meanwhile. An interruption ends in a checkpoint: the
bytes on disk stay, the job is paused, and the same command goes on with it.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.engine.run import LOST, JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.jobs import listing_rows, pause_resume, repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.plan import JobProgress, Network
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.sources.base import Source
from cacheapp.downloads.states import FINISHED_JOB, OWNED_JOB, FileState
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

_FLUSH_S = 1.0
_LOOK_S = 0.1
_END_S = 5.0
_PAUSED, _CANCELLED = "paused", "cancelled"


class JobBusy(CacheappError):
    """Another process runs this very job; nothing was done."""


@dataclasses.dataclass(frozen=True)
class TerminalOrder:
    """What somebody at a terminal wants."""

    source: Source
    text: str
    """The source in their words."""
    directory: Path
    threads: int
    limits: TransferLimits
    networks: tuple[Network, ...] = ()


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Where the job is, for a display."""

    progress: JobProgress
    files_total: int
    listed_all: bool
    waiting: int
    moving: list[tuple[str, int, int | None]]
    retries: int


def claim_job(order: TerminalOrder, owner: JobOwner) -> tuple[DownloadJob, bool]:
    """Return the job of a order, ours from now on, and whether it was begun before.

    Raise `JobBusy` where another process gives a sign of life. One that was killed gives none: its
    job is taken when `DOWNLOAD_HEARTBEAT_S` have gone by since the last, which is waited for.
    """
    mark = listing_rows.fingerprint(order.source.identity, order.directory)
    job = listing_rows.find_job(mark)
    if job is None:
        made = listing_rows.create_job(order.text, mark, order.directory, order.threads, owner)
        return made, False
    last = job.heartbeat_at
    while job.state in OWNED_JOB and job.heartbeat_at == last and not repository.is_orphan(job):
        threading.Event().wait(_LOOK_S)
        job.refresh_from_db()
    if not pause_resume.requeue(job, owner, order.threads):
        raise JobBusy(f"process {job.owner_pid} is at it: job {job.id}")
    return job, True


class ForegroundRunner:
    """One job, from its start to its end, in the calling thread."""

    def __init__(self, order: TerminalOrder, job: DownloadJob, owner: JobOwner) -> None:
        self._order = order
        self._job = job
        self._owner = owner
        self._run: JobRun | None = None
        self._feeder: Feeder | None = None
        self._flushed_s = 0.0
        self._meter = live_progress.RateMeter()
        self._total = (job.files_total, job.listed_all)

    def run(self, show: Callable[[Snapshot], None]) -> DownloadJob:
        """Fetch; return the job as it has ended. `show` is called a few times a second.

        Whatever exception ends it early (Ctrl-C), the job is paused with all that it has.
        """
        run = self._start()
        try:
            while not run.join(_LOOK_S):
                self._tick(run)
                show(self._snapshot(run))
            show(self._snapshot(run))
            self._finish(run)
        except BaseException:
            run.stop("interrupted", FileState.QUEUED, keep=True)
            run.join(_END_S)
            self._put_down(run)
            raise
        finally:
            if self._feeder is not None:
                self._feeder.join(_END_S)
        self._job.refresh_from_db()
        return self._job

    def _start(self) -> JobRun:
        settings, order = conf(), self._order
        plan = repository.start(self._job, self._owner, None, stream=True)
        if plan is None:
            raise JobBusy(f"job {self._job.id} was cancelled or paused a moment ago")
        trusted = order.source.trusted
        # Whoever has a terminal here may fetch from anywhere, unless the setting says from where.
        origins = (plan.origins or frozenset()) | trusted if settings.download_origins else None
        plan = dataclasses.replace(
            plan, origins=origins, networks=plan.networks + order.networks, trusted=trusted
        )
        pool: ThreadPool[QueuedFile] = ThreadPool(order.threads, settings.download_max_per_host)
        run = self._run = JobRun(
            *(plan, order.limits, lambda: None, pool, order.source.sign),
            is_still_owner=functools.partial(
                repository.has_token, self._job.id, self._owner, plan.token
            ),
        )
        try:
            run.start()
        except (OSError, RuntimeError) as exc:
            pause_resume.pause(self._job.id, self._owner, [], plan.done, str(exc), plan.token)
            raise
        self._feeder = Feeder(self._job, self._owner, run, order.source)
        self._feeder.start()
        return run

    def _tick(self, run: JobRun) -> None:
        now_s = clock.monotonic_s()
        if now_s - self._flushed_s < _FLUSH_S:
            return
        self._flushed_s = now_s
        run.enforce_limits()
        reports, progress = run.changes()
        try:
            changes = {self._job.id: (reports, progress)}
            told = repository.record(self._owner, changes, {self._job.id: run.plan.token})
            fields = ("files_total", "listed_all")
            self._total = DownloadJob.objects.values_list(*fields).get(id=self._job.id)
        except DatabaseError as exc:  # locked: the next flush tells it all again
            connection.close()
            logger.warning("progress not recorded: %s", exc, extra={"event": "flush_failed"})
            return
        run.mark_recorded(reports)
        live_progress.publish(run, self._meter)
        if told.lost:
            run.stop(LOST, FileState.QUEUED, keep=True)
        elif told.cancelled:
            run.stop(_CANCELLED, FileState.CANCELLED)
        elif told.paused:
            run.stop(_PAUSED, FileState.QUEUED, keep=True)

    def _snapshot(self, run: JobRun) -> Snapshot:
        return Snapshot(
            progress=run.changes()[1],
            files_total=self._total[0],
            listed_all=self._total[1],
            waiting=len(run.queue),
            moving=run.active_files(),
            retries=run.retries_made,
        )

    def _finish(self, run: JobRun) -> None:
        if self._feeder is not None:
            self._feeder.join(_END_S)
        if run.stopped == LOST:
            run.clean(keep=True)
        elif run.stopped == _PAUSED:
            self._put_down(run)
        else:
            reports, progress = run.changes()
            early = run.stopped not in {None, _CANCELLED}
            error = (run.stopped or "") if early else ""
            repository.finish(self._job.id, self._owner, reports, progress, error, run.plan.token)
            run.clean(keep=early)  # too long, or no listing: the same command may go on

    def _put_down(self, run: JobRun) -> None:
        reports, progress = run.changes()
        # With a locked database it is an orphan, and loses a second's reports; the journal has them.
        state = None
        with contextlib.suppress(DatabaseError):
            state = pause_resume.pause(
                self._job.id, self._owner, reports, progress, "", run.plan.token
            )
        run.clean(keep=state not in FINISHED_JOB)


def this_process() -> JobOwner:
    """Return this process as an owner."""
    return JobOwner(uuid.uuid4(), os.getpid())
