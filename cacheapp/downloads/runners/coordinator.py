"""Runs this process's jobs, and takes up those that others left: one coordinator thread.

Views only wake it. It starts the transfers' threads (in a view that would take up to seconds), and
is also the one flusher: it alone writes progress, about once a second for all jobs together. With
nothing to do it asks the database one question now and then: is there a job that nobody runs?
Nothing crosses a fork: a child begins without coordinator, jobs or identity.
"""

import logging
import os
import random
import threading
import uuid
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf, state_dir
from cacheapp.downloads.engine.run import LOST, JobRun, QueuedFile
from cacheapp.downloads.engine.thread_limit import thread_limit
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.http import connections
from cacheapp.downloads.jobs import ownership, pause_resume, repository, retention
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import OrphanDetector
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.jobs.wakeup import Listener
from cacheapp.downloads.runners import live_progress, metrics
from cacheapp.downloads.runners.metrics import DownloadMetrics
from cacheapp.downloads.runners.starter import RELEASED, Starter
from cacheapp.downloads.runners.terminal_cleanup import TerminalCleanup
from cacheapp.downloads.states import FINISHED_JOB, FileState, JobState

logger = logging.getLogger(__name__)

_FLUSH_S = 1.0
_LISTEN_S = 0.2
"""How often the bell is heard; a read of eight bytes."""
_LOOKS = 6
"""In the time within which a lost job is to be gone on with: each is a heartbeat, or a look for jobs."""
_PATIENCE = 0.6
"""After which part of that time a job without a heartbeat counts as lost. The rest is for looking:
to see the last heartbeat up to one look late, and that it is too old, another."""
_PRUNE_EVERY_S = 3600.0
_CANCELLED = "cancelled"
_PAUSED = "paused"


class Coordinator:
    """The coordinator of one process.

    `_lock` guards `_thread`, `_closed` and `_runs`. The coordinator alone changes `_runs`, so it
    reads them without; `_closed` only ever becomes true, and a late look costs one tick. All other
    mutable fields are the coordinator's alone.

    Invariants: a job is never adopted or started here while an earlier run of it is in `_runs`; and a
    running job of ours that is not there is released at the next look (`_release_stranded`).
    """

    def __init__(self, only: UUID | None = None) -> None:
        """`only`: the one job to adopt; `None`: whichever nobody runs."""
        self._only = only
        self.owner = JobOwner(uuid.uuid4(), os.getpid())
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._runs: dict[UUID, JobRun] = {}
        self._meters: dict[UUID, live_progress.RateMeter] = {}
        self._detector = OrphanDetector()
        self._terminal_cleanup = TerminalCleanup()
        self._listener = Listener()
        self._metrics = DownloadMetrics()
        self._prune_at_s = clock.monotonic_s() + random.uniform(0, _PRUNE_EVERY_S)  # noqa: S311
        self._answered = True
        settings = conf()
        self._pool: ThreadPool[QueuedFile] = ThreadPool(
            settings.download_max_threads,
            settings.download_max_per_host,
            thread_limit(state_dir() / "downloads.threads", settings.download_max_machine_threads),
        )
        self._pool.on_thread_free = self._wanted.set
        self._starter = Starter(self.owner, self._pool, self._wanted.set, self._take_in)

    def wake(self) -> None:
        """Have the coordinator look for what is new, soon; make it if there is none."""
        self._wanted.set()
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._coordinate, name="downloads-coordinator", daemon=True
                )
                self._thread.start()

    def close(self, within_s: float) -> None:
        """Stop all transfers and take no more jobs; return when they have ended, or it is late.

        What is on disk stays, for whoever goes on.
        """
        deadline_s = clock.monotonic_s() + within_s
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
            thread = self._thread
        for run in runs:
            run.stop(RELEASED, FileState.QUEUED, keep=True)
        self._wanted.set()
        for run in runs:
            run.join(max(0.0, deadline_s - clock.monotonic_s()))
        if thread is not None:
            thread.join(max(0.0, deadline_s - clock.monotonic_s()))

    def release(self) -> None:
        """Let go of all jobs, after `close`. May raise `DatabaseError`: then others find them lost."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            self._release(run)
        ownership.release_rest(self.owner)

    def _release(self, run: JobRun) -> bool:
        reports, progress = run.changes()
        if not ownership.release(run.plan.job, self.owner, run.plan.token, reports, progress):
            return False
        self._metrics.count_files(run.plan.job, reports, run.retries_made)
        self._metrics.count(metrics.RELEASES)
        return True

    def _coordinate(self) -> None:
        connections.prepare()
        busy = True
        while not self._closed:
            self._rest(busy=busy)
            try:
                busy = self._tick()
                self._heard_from_database()
            except DatabaseError as exc:  # locked, or gone: the next tick tells it all again
                busy = bool(self._runs)
                connection.close()  # it may be the connection: the next tick has a new one
                self._not_heard_from_database(exc)
            except Exception:  # a coordinator that dies leaves jobs that nobody ends
                busy = True
                logger.exception("downloads: coordinator")
            if not busy:
                connection.close()
        connection.close()

    def _rest(self, *, busy: bool) -> None:
        """Wait until somebody wakes us, the bell rings, or it is time for a look."""
        within_s = conf().download_heartbeat_s / _LOOKS
        # Not all workers in the same moment; never later than their heartbeats are expected.
        within_s = min(_FLUSH_S, within_s) if busy else within_s * random.uniform(0.8, 1.0)  # noqa: S311
        until_s = clock.monotonic_s() + within_s
        while not self._listener.was_notified():
            left_s = until_s - clock.monotonic_s()
            if left_s <= 0 or self._wanted.wait(min(left_s, _LISTEN_S)):
                break
        self._wanted.clear()

    def _heard_from_database(self) -> None:
        if not self._answered:
            self._answered = True
            logger.info("downloads: the database answers", extra={"event": "database_answers"})

    def _not_heard_from_database(self, exc: DatabaseError) -> None:
        if self._runs or self._answered:  # without runs once: it may not be there at all
            self._answered = False
            what = "progress not recorded" if self._runs else "no look for jobs; was it migrated?"
            logger.warning("downloads: %s: %s", what, exc, extra={"event": "flush_failed"})

    def _tick(self) -> bool:
        """Do everything that is to be done now; return whether any job here is unfinished."""
        for run in self._runs.values():
            run.enforce_limits()
        # Asked first: what a run that has ended reports from here on is all there is.
        over = [run for run in self._runs.values() if run.ended]
        jobs = ownership.unfinished()
        self._release_stranded(jobs)
        others = [job for job in jobs if job.owner != self.owner.token]
        if self._only is not None:
            others = [job for job in others if job.id == self._only]
        if self._runs or any(job.owner == self.owner.token for job in jobs):
            self._flush()
        for run in over:
            self._finish(run)
        self._adopt(others)
        self._pool.refill()
        self._prune()
        self._metrics.set_gauges(len(self._runs), self._pool.active_threads())
        left = self._starter.start_waiting(self._runs.keys(), is_closed=lambda: self._closed)
        return left or bool(self._runs)

    def _release_stranded(self, jobs: list[DownloadJob]) -> None:
        """Let go of jobs that run nowhere, though the database says that they do so here.

        It said so, and then failed before we had the run, or its answer was lost on the way. With
        our heartbeat and without a run, nobody would go on with them, nor end them.
        """
        for job in jobs:
            is_ours = (job.owner, job.state) == (self.owner.token, JobState.RUNNING)
            if is_ours and job.id not in self._runs and ownership.release_as_is(job, self.owner):
                self._metrics.count(metrics.RELEASES)
                self._wanted.set()

    def _take_in(self, run: JobRun) -> None:
        """Know a run, before it starts: whoever closes stops it."""
        with self._lock:
            self._runs[run.plan.job] = run
        self._metrics.count(metrics.JOBS_STARTED)

    def _prune(self) -> None:
        retention_s = conf().download_retention_s
        now_s = clock.monotonic_s()
        if retention_s is not None and now_s >= self._prune_at_s:
            every_s = min(_PRUNE_EVERY_S, retention_s)
            self._prune_at_s = now_s + every_s * random.uniform(0.5, 1.5)  # noqa: S311
            retention.prune_beside(retention_s)

    def _flush(self) -> None:
        """Record what the runs have done, with a heartbeat, and heed what is asked of them."""
        changes = {job_id: run.changes() for job_id, run in self._runs.items()}
        tokens = {job_id: run.plan.token for job_id, run in self._runs.items()}
        told = repository.record(self.owner, changes, tokens)
        for job_id, run in self._runs.items():
            reports = changes[job_id][0]
            run.mark_recorded(reports)
            if job_id not in told.lost:
                self._metrics.count_files(job_id, reports, run.retries_made)
            live_progress.publish(run, self._meters.setdefault(job_id, live_progress.RateMeter()))
            if job_id in told.lost:
                run.stop(LOST, FileState.QUEUED, keep=True)
            elif job_id in told.cancelled:
                run.stop(_CANCELLED, aborted=FileState.CANCELLED)
            elif job_id in told.paused:
                run.stop(_PAUSED, aborted=FileState.QUEUED, keep=True)

    def _adopt(self, others: list[DownloadJob]) -> None:
        """Take up a job that nobody runs, if there is a thread for it, and look again at once.

        One at a time: so other workers have their share of them.
        """
        patience_s = conf().download_heartbeat_s * _PATIENCE
        for job in self._detector.orphans(others, clock.monotonic_s(), patience_s):
            if self._closed or job.id in self._runs:
                continue
            if job.destination:
                silent = f"no sign of life for {patience_s:g} s"
                self._terminal_cleanup.clean_up(
                    job, f"process {job.owner_pid} ended or hangs: {silent}"
                )
                continue
            wanted = job.cancel_requested or job.pause_requested or self._pool.has_capacity()
            if wanted and ownership.adopt(job, self.owner):
                self._metrics.count(metrics.ADOPTIONS)
                self._wanted.set()
                return

    def _finish(self, run: JobRun) -> None:
        reports, progress = run.changes()
        job_id, stopped, token = run.plan.job, run.stopped, run.plan.token
        state: JobState | None = None
        if stopped == _PAUSED:
            state = pause_resume.pause(job_id, self.owner, reports, progress, "", token)
        elif stopped in {RELEASED, LOST}:  # not ours; or it is, and somebody may go on with it
            state = JobState.QUEUED if self._release(run) else None
        else:
            error = "" if stopped in {None, _CANCELLED} else stopped or ""
            state = repository.finish(job_id, self.owner, reports, progress, error, token)
        if state is not None and state is not JobState.QUEUED:
            self._metrics.count_files(job_id, reports, run.retries_made)
        self._metrics.forget(job_id)
        # What somebody else ends, or goes on with, may be this: nobody has taken it over yet.
        run.clean(keep=state not in FINISHED_JOB)
        with self._lock:
            del self._runs[job_id]
        self._meters.pop(job_id, None)
        logger.log(
            logging.INFO if state is JobState.SUCCEEDED else logging.WARNING,
            *("job %s: %s, %d whole", job_id, state or "lost", progress.files_done),
            extra={"event": "job_ended", "job": str(job_id), "state": state or "lost"},
        )


_coordinator: Coordinator | None = None
_coordinator_lock = threading.Lock()  # guards _coordinator


def coordinator() -> Coordinator:
    """Return this process's coordinator, which may have to be made."""
    global _coordinator  # noqa: PLW0603 (one per process is what it is)
    with _coordinator_lock:
        if _coordinator is None:
            _coordinator = Coordinator()
        return _coordinator


def existing_coordinator() -> Coordinator | None:
    """Return this process's coordinator if it has ever needed one."""
    return _coordinator


def _forget() -> None:
    global _coordinator, _coordinator_lock  # noqa: PLW0603
    _coordinator = None
    _coordinator_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
