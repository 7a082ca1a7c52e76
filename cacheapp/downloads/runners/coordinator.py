"""Runs this process's jobs and adopts those that lost their owner, in one coordinator thread.

Views only wake it. It starts the runs, because starting threads in a view could take seconds, and it
alone writes progress, about once a second for all jobs together. Heartbeats have a thread of their own,
so no work delays them. Without work it reads the unfinished
jobs now and then, to find one that no process runs. Nothing crosses a fork: a child starts without
coordinator, jobs or owner identity.
"""

import dataclasses
import functools
import logging
import os
import random
import threading
from multiprocessing.util import Finalize
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf, state_dir
from cacheapp.directory_trust import replaceable_reason
from cacheapp.downloads import release_downloads
from cacheapp.downloads.engine.estimate import ProgressMeter
from cacheapp.downloads.engine.run import LOST, JobRun, QueuedFile
from cacheapp.downloads.engine.thread_limit import thread_limit
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.http import connections
from cacheapp.downloads.jobs import ownership, repository, retention, transitions
from cacheapp.downloads.jobs.database_errors import migration_hint
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import OrphanDetector
from cacheapp.downloads.jobs.rows import progress_of
from cacheapp.downloads.jobs.wakeup import Listener
from cacheapp.downloads.plan import Plan
from cacheapp.downloads.runners import live_progress, metrics, run_control
from cacheapp.downloads.runners.bucket_opener import BucketOpener, LimitedBucket, is_listed
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.runners.heartbeat import Heartbeat
from cacheapp.downloads.runners.metrics import DownloadMetrics
from cacheapp.downloads.runners.notifier import Notifier
from cacheapp.downloads.runners.terminal_cleanup import TerminalCleanup
from cacheapp.downloads.sources.base import SourceRefused
from cacheapp.downloads.states import JobState
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

_FLUSH_S = 1.0
_LISTEN_S = 0.2
"""How often the wakeup file is read; it has eight bytes."""
_CHECKS_PER_HEARTBEAT = 6
"""Checks within `DOWNLOAD_HEARTBEAT_S`, in which a lost job must be adopted."""
_LOST_AFTER = 0.6
"""The part of `DOWNLOAD_HEARTBEAT_S` after which a job without a new heartbeat is lost. The rest is for
two checks: the last heartbeat may be seen one check late, and its age another one."""
_PRUNE_EVERY_S = 3600.0


class Coordinator:
    """The coordinator of one process.

    `_lock` guards `_thread`, `_closed` and `_runs`. Only the coordinator thread changes `_runs`, so it
    reads it without the lock; `_closed` only ever becomes true, and reading it late costs one tick. All
    other mutable fields belong to the coordinator thread.

    Invariants: a job is never adopted or started while an earlier run of it is in `_runs`; a running
    job of this owner without a run is released at the next tick (`_release_stranded`).
    """

    def __init__(self, only: UUID | None = None) -> None:
        """`only`: the one job to adopt; `None`: any that has no live owner."""
        self._only = only
        self.owner = ownership.new_owner()
        self._heartbeat = Heartbeat(self.owner)
        self._wakeup = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._runs: dict[UUID, JobRun] = {}
        self._meters: dict[UUID, ProgressMeter] = {}
        self._orphan_detector = OrphanDetector()
        self._terminal_cleanup = TerminalCleanup()
        self._notifier = Notifier()
        self._bucket_opener = BucketOpener(self._wakeup.set)
        self._listener = Listener()
        self._metrics = DownloadMetrics()
        self._logged_errors: dict[UUID, str] = {}  # of waiting jobs, so that each is logged once
        self._prune_at_s = clock.monotonic_s() + random.uniform(0, _PRUNE_EVERY_S)  # noqa: S311
        self._database_ok = True
        settings = conf()
        self._pool: ThreadPool[QueuedFile] = ThreadPool(
            settings.download_max_threads,
            settings.download_max_per_host,
            thread_limit(state_dir() / "downloads.threads", settings.download_max_machine_threads),
        )
        self._pool.on_thread_free = self._wakeup.set

    def wake(self) -> None:
        """Make the coordinator look for work soon; start its thread if there is none."""
        self._wakeup.set()
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(
                    target=self._coordinate, name="downloads-coordinator", daemon=True
                )
                try:
                    thread.start()
                except (
                    RuntimeError
                ) as exc:  # another process adopts the job, or the next call starts
                    logger.warning("downloads: the coordinator was not started: %s", exc)
                    return
                self._thread = thread

    def close(self, within_s: float) -> None:
        """Stop all transfers and start no more; return when they have ended, or after `within_s`.

        The bytes on disk stay, for the process that resumes the jobs.
        """
        deadline_s = clock.monotonic_s() + within_s
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
            thread = self._thread
        for run in runs:
            run_control.release(run)
        self._wakeup.set()
        for run in runs:
            run.join(max(0.0, deadline_s - clock.monotonic_s()))
        if thread is not None:
            thread.join(max(0.0, deadline_s - clock.monotonic_s()))
        self._heartbeat.stop(max(0.0, deadline_s - clock.monotonic_s()))

    def is_closed(self) -> bool:
        """Return True after `close`."""
        return self._closed

    def release(self) -> None:
        """Release all jobs, after `close`. On a `DatabaseError`, other processes find them lost."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            self._release(run)
        transitions.release_all(self.owner)

    def _release(self, run: JobRun) -> bool:
        reports, progress = run.changes()
        if not transitions.release(run.plan.job, self.owner, run.plan.token, reports, progress):
            return False
        self._metrics.count_files(run.plan.job, reports, run.retries_made)
        self._metrics.count(metrics.RELEASES)
        return True

    # The loop of the coordinator thread.

    def _coordinate(self) -> None:
        connections.prepare()
        busy = True
        while not self._closed:
            self._wait(busy=busy)
            self._heartbeat.note_round()
            try:
                busy = self._tick()
                self._note_database_ok()
            except DatabaseError as exc:  # locked or gone: the next tick writes everything again
                busy = bool(self._runs)
                connection.close()  # the connection may be broken: the next tick opens a new one
                self._note_database_error(exc)
            except Exception:  # without a coordinator, its jobs would never end
                busy = True
                logger.exception("downloads: error in the coordinator")
            if not busy:
                connection.close()
        connection.close()

    def _wait(self, *, busy: bool) -> None:
        """Wait until this coordinator is woken, all on the machine are, or the next check is due."""
        within_s = conf().download_heartbeat_s / _CHECKS_PER_HEARTBEAT
        # Spread over the workers; never later than their heartbeats are expected.
        within_s = min(_FLUSH_S, within_s) if busy else within_s * random.uniform(0.8, 1.0)  # noqa: S311
        until_s = clock.monotonic_s() + within_s
        while not self._listener.was_notified():
            left_s = until_s - clock.monotonic_s()
            if left_s <= 0 or self._wakeup.wait(min(left_s, _LISTEN_S)):
                break
        self._wakeup.clear()

    def _note_database_ok(self) -> None:
        if not self._database_ok:
            self._database_ok = True
            logger.info("downloads: the database responds", extra={"event": "database_responds"})

    def _note_database_error(self, exc: DatabaseError) -> None:
        if self._runs or self._database_ok:  # without runs once: there may be no database at all
            self._database_ok = False
            what = "progress not recorded" if self._runs else "jobs not read"
            logger.warning(
                *("downloads: %s: %s%s", what, exc, migration_hint(exc)),
                extra={"event": "flush_failed"},
            )

    def _tick(self) -> bool:
        """Do everything that is due; return whether any job of this owner is unfinished."""
        for run in self._runs.values():
            run.enforce_limits()
        # Read first: the changes of a run that has ended are complete from here on.
        ended = [run for run in self._runs.values() if run.ended]
        jobs = ownership.unfinished_jobs()
        self._release_stranded(jobs)
        others = [job for job in jobs if job.owner != self.owner.token]
        if self._only is not None:
            others = [job for job in others if job.id == self._only]
        if self._runs or any(job.owner == self.owner.token for job in jobs):
            self._flush()
        for run in ended:
            self._finish(run)
        self._adopt(others)
        self._pool.refill()
        self._prune()
        self._metrics.set_gauges(len(self._runs), self._pool.active_threads())
        left = self._start_waiting()
        self._notifier.deliver_due()
        return left or bool(self._runs)

    def _release_stranded(self, jobs: list[DownloadJob]) -> None:
        """Release jobs that run here according to the database, but have no run.

        The connection broke after they were marked as running. With a heartbeat and without a run, no
        process would resume them, nor end them.
        """
        for job in jobs:
            is_ours = (job.owner, job.state) == (self.owner.token, JobState.RUNNING)
            is_stranded = is_ours and job.id not in self._runs
            if is_stranded and transitions.release_unchanged(job, self.owner):
                self._metrics.count(metrics.RELEASES)
                self._wakeup.set()

    def _prune(self) -> None:
        settings, now_s = conf(), clock.monotonic_s()
        found = (settings.download_retention_s, settings.download_audit_retention_s)
        if any(found) and now_s >= self._prune_at_s:
            every_s = min(_PRUNE_EVERY_S, *filter(None, found))
            self._prune_at_s = now_s + every_s * random.uniform(0.5, 1.5)  # noqa: S311
            retention.prune_beside(settings.download_retention_s)

    def _flush(self) -> None:
        """Record the progress of all runs, with a heartbeat, and apply the requests to them."""
        changes = {job_id: run.changes() for job_id, run in self._runs.items()}
        tokens = {job_id: run.plan.token for job_id, run in self._runs.items()}
        requests = repository.record(self.owner, changes, tokens)
        for job_id, run in self._runs.items():
            reports = changes[job_id][0]
            run.mark_recorded(reports)
            if job_id not in requests.lost:
                self._metrics.count_files(job_id, reports, run.retries_made)
            meter = self._meters.setdefault(job_id, ProgressMeter())
            live_progress.publish(run, meter, requests.files_total.get(job_id))
            run_control.apply_requests(run, requests)

    def _finish(self, run: JobRun) -> None:
        reports, progress = run.changes()
        job_id = run.plan.job
        state: JobState | None
        if run.stopped in {run_control.RELEASED, LOST}:  # still ours, or another owner's
            state = JobState.QUEUED if self._release(run) else None
        else:
            state = run_control.record_end(run, self.owner)
            if state is not None:
                self._metrics.count_files(job_id, reports, run.retries_made)
        self._metrics.forget(job_id)
        run_control.clean(run, state)
        with self._lock:
            del self._runs[job_id]
        self._meters.pop(job_id, None)
        logger.log(
            logging.INFO if state is JobState.SUCCEEDED else logging.WARNING,
            *("job %s: %s, %d files done", job_id, state or "lost", progress.files_done),
            extra={"event": "job_ended", "job": str(job_id), "state": state or "lost"},
        )

    def _adopt(self, others: list[DownloadJob]) -> None:
        """Adopt one job that no process runs, if a thread is free, and check again at once.

        One at a time, so that other workers get their share.
        """
        patience_s = conf().download_heartbeat_s * _LOST_AFTER
        for job in self._orphan_detector.orphans(others, clock.monotonic_s(), patience_s):
            if self._closed or job.id in self._runs:
                continue
            if job.destination:
                why = f"process {job.owner_pid} ended or hangs: no heartbeat for {patience_s:g} s"
                self._terminal_cleanup.clean_up(job, why)
                continue
            needs_no_thread = job.cancel_requested or job.pause_requested
            if (needs_no_thread or self._pool.has_capacity()) and transitions.adopt(
                job, self.owner
            ):
                self._metrics.count(metrics.ADOPTIONS)
                self._wakeup.set()
                return

    # Starting queued jobs. An error in one job ends that job; the others start all the same.

    def _start_waiting(self) -> bool:
        """Start queued jobs, oldest first, while there are threads; return whether any is left.

        A job that finds none gets the next free one, and from then on its fair share.
        """
        left = False
        waiting = repository.waiting(self.owner)
        ids = {job.id for job in waiting}
        self._bucket_opener.retain(ids)
        self._logged_errors = {key: it for key, it in self._logged_errors.items() if key in ids}
        for job in waiting:
            if job.id in self._runs:  # its earlier run has not ended yet
                left = True
            elif job.cancel_requested:
                self._end(job, "")
            elif job.pause_requested:
                transitions.pause(job.id, self.owner, [], progress_of(job), "", job.token)
            elif left or self._closed or not self._pool.reserve() or not self._start(job):
                left = True
        if not left:
            self._pool.reserve(wanted=False)
        return left

    def _end(self, job: DownloadJob, error: str) -> None:
        """End a queued job; if its directory cannot be written, a later tick tries again."""
        try:
            transitions.end_queued(job, self.owner, error)
        except OSError as exc:
            if self._logged_errors.get(job.id) != str(exc):
                logger.warning("job %s: not ended yet: %s", job.id, exc)
            self._logged_errors[job.id] = str(exc)

    def _start(self, job: DownloadJob) -> bool:
        """Start a queued job, or end it if it cannot run; return False if it must wait."""
        root, source = conf().download_root, None
        problem = _problem_of_root(root)
        if root is None or problem:
            self._end(job, problem)
            return True
        if is_listed(job):
            try:
                source = self._bucket_opener.take(job)
            except SourceRefused as exc:
                self._end(job, str(exc))
                return True
            if source is None:
                return False  # the opener wakes this coordinator
        plan = repository.start(job, self.owner, root, stream=True)
        if plan is None:
            return False  # cancelled or paused just now: the next tick handles it
        try:
            run = self._new_run(plan, source)
        except Exception as exc:
            logger.exception("job %s: not started", job.id)
            self._end(job, _reason(exc))
            return True
        try:
            run.start()
            Feeder(job, self.owner, run, source).start()
        except Exception as exc:  # noqa: BLE001 (of any kind: it ends this job alone)
            self._stop_failed(run, exc)
        if self._closed:  # since just now; `close` may not have seen this run
            run_control.release(run)
        logger.info(
            *("job %s: %d files with %d threads", job.id, job.files_total, plan.threads),
            extra={"event": "job_started", "job": str(job.id)},
        )
        return True

    def _new_run(self, plan: Plan, source: LimitedBucket | None) -> JobRun:
        """Return a run that is not started yet; it is in `_runs`, so that `close` stops it."""
        if source is not None:
            origins = source.trusted | {source.origin}
            plan = dataclasses.replace(plan, origins=origins, trusted=source.trusted)
        limits = run_control.transfer_limits(conf())
        is_still_owner = functools.partial(ownership.has_token, plan.job, self.owner, plan.token)
        sign = None if source is None else source.sign
        run = JobRun(
            *(plan, limits, self._wakeup.set, self._pool, sign), is_still_owner=is_still_owner
        )
        with self._lock:
            self._runs[plan.job] = run
        self._metrics.count(metrics.JOBS_STARTED)
        return run

    def _stop_failed(self, run: JobRun, exc: Exception) -> None:
        """Stop a run that could not start; its job is running in the database, and ends."""
        if isinstance(exc, DatabaseError):  # it is unknown whether the job is still this owner's
            run_control.release(run)
            return
        if not isinstance(exc, OSError | RuntimeError):
            logger.error("job %s: not started", run.plan.job, exc_info=exc)
        run.stop(_reason(exc))
        self._wakeup.set()


def _reason(exc: Exception) -> str:
    why: object = f"internal error: {type(exc).__name__}"
    if isinstance(exc, OSError | RuntimeError | CacheappError):
        why = getattr(exc, "strerror", None) or exc
    return f"could not be started: {why}"


_coordinator: Coordinator | None = None
_coordinator_lock = threading.Lock()  # guards _coordinator


def coordinator() -> Coordinator:
    """Return this process's coordinator; create it at the first call."""
    global _coordinator  # noqa: PLW0603 (one per process)
    with _coordinator_lock:
        if _coordinator is None:
            _coordinator = Coordinator()
            # For servers without hooks; after a hook it finds nothing to do. Unlike `atexit`, it also
            # runs in children that multiprocessing forks.
            Finalize(None, release_downloads, (os.getpid(),), exitpriority=0)
        return _coordinator


def existing_coordinator() -> Coordinator | None:
    """Return this process's coordinator, or `None` if it never needed one."""
    return _coordinator


def _forget() -> None:
    global _coordinator, _coordinator_lock  # noqa: PLW0603
    _coordinator = None
    _coordinator_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)


def _problem_of_root(root: Path | None) -> str:
    """Return why no job may save files below this root; empty if it may."""
    if root is None:
        return "CACHEAPP['DOWNLOAD_ROOT'] is not set"
    reason = replaceable_reason(root)
    return f"CACHEAPP['DOWNLOAD_ROOT']: {reason}; nothing was saved" if reason else ""
