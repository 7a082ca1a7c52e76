"""Runs this process's jobs: one coordinator thread, made when the first job comes.

Views only wake it. It starts the transfers' threads (in a view that would take up to seconds), and
is also the one flusher: it alone writes progress, at most a few times a second for all jobs
together. Nothing here exists before the first job, and nothing crosses a fork: a child begins
without coordinator, jobs or identity.
"""

import logging
import os
import threading
import uuid
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads import ledger, live, pausing
from cacheapp.downloads.engine import Fetch, Run
from cacheapp.downloads.ledger import Owner, Told
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.plan import Progress
from cacheapp.downloads.pool import Pool
from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.wanted import Limits

logger = logging.getLogger(__name__)

_FLUSH_S = 1.0
_CANCELLED = "cancelled"
_PAUSED = "paused"


class Host:
    """The coordinator of one process.

    `_lock` guards `_thread`, `_closed` and `_runs`. The coordinator alone changes `_runs`, so it
    reads them without; `_closed` only ever becomes true, and a late look costs one tick.
    """

    def __init__(self) -> None:
        self.owner = Owner(uuid.uuid4(), os.getpid())
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._runs: dict[UUID, Run] = {}
        self._meters: dict[UUID, live.Meter] = {}  # the coordinator's alone
        settings = conf()
        self._pool: Pool[Fetch] = Pool(
            settings.download_max_threads, settings.download_max_per_host
        )
        self._pool.on_free = self._wanted.set

    def wake(self) -> None:
        """Have the coordinator look for what is new, soon; make it if there is none."""
        self._wanted.set()
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._coordinate, name="downloads-coordinator", daemon=True
                )
                self._thread.start()

    def close(self, reason: str, within_s: float) -> None:
        """Stop all transfers and take no more jobs; return when they have ended, or it is late."""
        deadline_s = clock.monotonic_s() + within_s
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
            thread = self._thread
        for run in runs:
            run.stop(reason)
        self._wanted.set()
        for run in runs:
            run.join(max(0.0, deadline_s - clock.monotonic_s()))
        if thread is not None:
            thread.join(max(0.0, deadline_s - clock.monotonic_s()))

    def _coordinate(self) -> None:
        busy = True
        while not self._closed:
            flush_s = min(_FLUSH_S, conf().download_heartbeat_s / 4)
            self._wanted.wait(flush_s if busy else None)
            self._wanted.clear()
            try:
                busy = self._tick()
            except DatabaseError as exc:  # locked, or gone: the next tick tells it all again
                busy = True
                connection.close()  # it may be the connection: the next tick has a new one
                logger.warning(
                    "downloads: progress not recorded: %s", exc, extra={"event": "flush_failed"}
                )
            except Exception:  # a coordinator that dies leaves jobs that nobody ends
                busy = True
                logger.exception("downloads: coordinator")
            if not busy:
                connection.close()
        connection.close()

    def _tick(self) -> bool:
        """Do everything that is to be done now; return whether any job is unfinished."""
        for run in self._runs.values():
            run.enforce()
        # Asked first: what a run that has ended reports from here on is all there is.
        over = [run for run in self._runs.values() if run.ended]
        changes = {job_id: run.changes() for job_id, run in self._runs.items()}
        told = ledger.record(self.owner, changes)
        for job_id, run in self._runs.items():
            run.recorded(changes[job_id][0])
            live.tell(run, self._meters.setdefault(job_id, live.Meter()))
            if job_id in told.lost:
                run.stop("its job was ended by another worker")
            elif job_id in told.cancelled:
                run.stop(_CANCELLED, aborted=FileState.CANCELLED)
            elif job_id in told.paused:
                run.stop(_PAUSED, aborted=FileState.QUEUED, keep=True)
        for run in over:
            self._finish(run)
        return self._start_waiting(told) or bool(self._runs)

    def _start_waiting(self, told: Told) -> bool:
        """Start queued jobs, oldest first, while there are threads; return whether any is left.

        A job that finds none has the next one that gets free, and from then on its fair share.
        """
        left = False
        for job in ledger.waiting(self.owner):
            if job.id in told.cancelled:
                left |= not ledger.end_early(job, "")
            elif job.id in told.paused:
                left |= not pausing.pause(job.id, self.owner, [], Progress(), "")
            elif left or self._closed or not self._pool.reserve() or not self._start(job):
                left = True
        if not left:
            self._pool.reserve(wanted=False)
        return left

    def _start(self, job: DownloadJob) -> bool:
        """Give a queued job its threads; return whether it is queued no longer."""
        settings = conf()
        if settings.download_root is None:
            return ledger.end_early(job, "CACHEAPP['DOWNLOAD_ROOT'] is not set")
        plan = ledger.start(job, self.owner, settings.download_root)
        if plan is None:
            return False  # cancelled a moment ago: the next tick ends it
        limits = Limits(
            max_bytes=settings.download_max_bytes, min_free_bytes=settings.download_min_free_bytes
        )
        run = Run(plan, limits, self._wanted.set, self._pool)
        with self._lock:
            self._runs[job.id] = run
        try:
            run.start()
        except (OSError, RuntimeError) as exc:
            run.stop(f"could not be started: {getattr(exc, 'strerror', None) or exc}")
            self._wanted.set()
        if self._closed:  # closed a moment ago, without having seen this run
            run.stop("its worker ended")
        logger.info(
            *("job %s: %d files with %d threads", job.id, job.files_total, plan.threads),
            extra={"event": "job_started", "job": str(job.id)},
        )
        return True

    def _finish(self, run: Run) -> None:
        reports, progress = run.changes()
        paused = run.stopped == _PAUSED
        if paused:
            ours = pausing.pause(run.plan.job, self.owner, reports, progress, "")
            state = JobState.PAUSED if ours else None
        else:
            error = "" if run.stopped in {None, _CANCELLED} else run.stopped or ""
            state = ledger.finish(run.plan.job, self.owner, reports, progress, error)
        run.clean(keep=paused)
        with self._lock:
            del self._runs[run.plan.job]
        self._meters.pop(run.plan.job, None)
        logger.log(
            logging.INFO if state is JobState.SUCCEEDED else logging.WARNING,
            *("job %s: %s, %d whole", run.plan.job, state or "lost", progress.files_done),
            extra={"event": "job_ended", "job": str(run.plan.job), "state": state or "lost"},
        )


_host: Host | None = None
_host_lock = threading.Lock()  # guards _host


def host() -> Host:
    """Return this process's coordinator, which may have to be made."""
    global _host  # noqa: PLW0603 (one per process is what it is)
    with _host_lock:
        if _host is None:
            _host = Host()
        return _host


def existing_host() -> Host | None:
    """Return this process's coordinator if it has ever needed one."""
    return _host


def _forget() -> None:
    global _host, _host_lock  # noqa: PLW0603
    _host = None
    _host_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
