"""Runs one job in this process, for a terminal; a job that is interrupted can be resumed.

Once a second the main thread writes progress and a heartbeat, and reads whether a pause or a
cancellation was requested. An interruption pauses the job: the bytes stay on disk, and the same command
resumes it.
"""

import contextlib
import dataclasses
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.engine.estimate import ProgressMeter
from cacheapp.downloads.engine.run import LOST, JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.jobs import audit, listing_rows, ownership, repository, transitions
from cacheapp.downloads.jobs.actors import terminal_actor
from cacheapp.downloads.jobs.missing_files import missing_files
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import JobProgress, Network, RetryPolicy
from cacheapp.downloads.runners import live_progress, notifier, run_control
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.sources.base import Source
from cacheapp.downloads.sources.name_filter import ALL_NAMES, NameFilter
from cacheapp.downloads.sources.synced_source import SyncedSource
from cacheapp.downloads.states import OWNED_JOB, FileState, JobState
from cacheapp.downloads.storage.sync_index import SyncIndex
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

_FLUSH_S = 1.0
_LOOK_S = 0.1
_END_S = 5.0


class JobBusy(CacheappError):
    """Another process runs this job; nothing was changed."""


@dataclasses.dataclass(frozen=True)
class TerminalOrder:
    """What the command's arguments ask for."""

    source: Source
    text: str
    """The source as it was typed."""
    directory: Path
    threads: int
    limits: TransferLimits
    retries: RetryPolicy
    networks: tuple[Network, ...] = ()
    webhook: str = ""
    names: NameFilter = ALL_NAMES
    sync: bool = False
    """Fetch only what has changed since an earlier job."""
    portable_names: bool = False
    limit_rate: int | None = None
    parts: int | None = None
    title: str = ""
    """For people; empty: made from the source, or as it was."""
    logins: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of a run, for a display."""

    progress: JobProgress
    files_total: int
    listed_all: bool
    active_files: list[tuple[str, int, int | None]]
    retries: int
    rate_bps: float | None = None
    eta_s: float | None = None


def claim_job(
    order: TerminalOrder, owner: JobOwner, *, anew: bool = False
) -> tuple[DownloadJob, bool]:
    """Return the job of an order, owned by `owner` from now on, and whether it existed before.

    Raise `JobBusy` if another process sends heartbeats. A process that was killed sends none: wait
    until its last heartbeat is `DOWNLOAD_HEARTBEAT_S` old, then take its job. `anew`: create one in
    any case.
    """
    portable = order.portable_names
    digest = listing_rows.fingerprint(
        order.source.identity, order.directory, portable_names=portable
    )
    job = None if anew else listing_rows.find_job(digest)
    if job is None:
        facts = (order.text, digest, order.directory, order.threads, owner)
        further: dict[str, Any] = {
            "portable_names": portable,
            "webhook": order.webhook,
            "include": list(order.names.include),
            "exclude": list(order.names.exclude),
            "limit_rate": order.limit_rate,
            "parts": order.parts,
            "title": order.title,
        }
        return listing_rows.create_job(*facts, **further), False
    last = job.heartbeat_at
    while job.state in OWNED_JOB and job.heartbeat_at == last and not ownership.is_orphan(job):
        threading.Event().wait(_LOOK_S)
        job.refresh_from_db()
    missing = missing_files(job, verify=order.limits.verify)
    if not transitions.requeue(job, owner, order.threads, missing, terminal_actor()):
        raise JobBusy(f"job {job.id} is run by process {job.owner_pid}; nothing was changed")
    given: dict[str, Any] = {"webhook": order.webhook, "parts": order.parts}
    given |= {"limit_rate": order.limit_rate, **({"title": order.title} if order.title else {})}
    ownership.owned_by(job.id, owner).update(**given)
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
        self._meter = ProgressMeter()
        self._total = (job.files_total, job.listed_all)
        self._source = order.source
        self._sync_index = SyncIndex(order.directory, order.source.scope) if order.sync else None

    def run(self, show: Callable[[Snapshot], None]) -> DownloadJob:
        """Run the job and return it when it has ended; `show` is called a few times a second.

        An exception, such as Ctrl-C, pauses the job with everything that it has fetched.
        """
        run = self._start()
        try:
            self._watch(run, show)
            show(self._snapshot(run))
            self._finish(run)
        except BaseException:
            run.stop("interrupted", FileState.QUEUED, keep=True)
            run.join(_END_S)
            self._pause(run, audited=True)
            raise
        finally:
            if self._feeder is not None:
                self._feeder.join(_END_S)
            if self._sync_index is not None:
                self._sync_index.close()
        self._job.refresh_from_db()
        notifier.deliver(self._job.id)
        return self._job

    def _watch(self, run: JobRun, show: Callable[[Snapshot], None]) -> None:
        while not run.join(_LOOK_S):
            self._tick(run)
            show(self._snapshot(run))

    def _start(self) -> JobRun:
        settings, order = conf(), self._order
        plan = repository.start(self._job, self._owner, None, stream=True)
        if plan is None:
            raise JobBusy(f"job {self._job.id} was cancelled or paused just now")
        trusted = order.source.trusted
        # A user of this terminal may fetch from anywhere, unless the setting restricts origins.
        origins = (plan.origins or frozenset()) | trusted if settings.download_origins else None
        plan = dataclasses.replace(
            plan,
            origins=origins,
            networks=plan.networks + order.networks,
            trusted=trusted,
            proxied=True,
            logins=order.logins,
            retries=order.retries,
        )
        if self._sync_index is not None:
            self._sync_index.load()
            verify = order.limits.verify
            self._source = SyncedSource(order.source, self._sync_index, verify=verify)
        pool: ThreadPool[QueuedFile] = ThreadPool(order.threads, settings.download_max_per_host)
        run = self._run = JobRun(
            *(plan, order.limits, lambda: None, pool, order.source.sign),
            is_still_owner=functools.partial(
                ownership.has_token, self._job.id, self._owner, plan.token
            ),
            sync_index=self._sync_index,
        )
        try:
            run.start()
        except (OSError, RuntimeError) as exc:
            transitions.pause(self._job.id, self._owner, [], plan.done, str(exc), plan.token)
            raise
        self._feeder = Feeder(self._job, self._owner, run, self._source)
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
            requests = repository.record(self._owner, changes, {self._job.id: run.plan.token})
            fields = ("files_total", "listed_all")
            self._total = DownloadJob.objects.values_list(*fields).get(id=self._job.id)
        except DatabaseError as exc:  # locked: the next flush writes everything again
            connection.close()
            logger.warning("progress not recorded: %s", exc, extra={"event": "flush_failed"})
            return
        run.mark_recorded(reports)
        files_total, listed_all = self._total
        live_progress.publish(run, self._meter, files_total if listed_all else None)
        run_control.apply_requests(run, requests)

    def _snapshot(self, run: JobRun) -> Snapshot:
        estimate = self._meter.estimate
        return Snapshot(
            progress=run.changes()[1],
            files_total=self._total[0],
            listed_all=self._total[1],
            active_files=run.active_files(),
            retries=run.retries_made,
            rate_bps=estimate.rate_bps,
            eta_s=estimate.left_s,
        )

    def _finish(self, run: JobRun) -> None:
        if self._feeder is not None:
            self._feeder.join(_END_S)
        if run.stopped == LOST:
            run.clean(keep=True)
        elif run.stopped == run_control.PAUSED:
            self._pause(run)
        else:
            run_control.clean(run, run_control.record_end(run, self._owner))

    def _pause(self, run: JobRun, *, audited: bool = False) -> None:
        # With a locked database the job is an orphan, without its last reports; the journal has them.
        state = None
        with contextlib.suppress(DatabaseError):
            state = run_control.record_pause(run, self._owner)
            if audited and state is JobState.PAUSED:
                audit.record(self._job.id, audit.PAUSE, terminal_actor())
        run_control.clean(run, state)
