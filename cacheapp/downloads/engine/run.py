"""Runs one job's transfers on the threads of a pool. Imports neither the database nor Django.

The coordinator starts a `JobRun`, polls it for changes, and is called back when its last transfer
has ended. Files may be added while it runs, so that a listing of 100,000 objects is never held in
memory.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from cacheapp import clock
from cacheapp.downloads.engine.previous_runs import PreviousRuns, success_report
from cacheapp.downloads.engine.progress import RunProgress
from cacheapp.downloads.engine.scheduler import FileQueue
from cacheapp.downloads.engine.split_file import PartsInTransfer, PartWorker, Seat
from cacheapp.downloads.engine.thread_pool import AttemptResult, ThreadPool
from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.conditional import KnownVersion
from cacheapp.downloads.http.credentials import origin_signer
from cacheapp.downloads.http.errors import (
    NotModified,
    TransferAborted,
    TransferFailed,
    translate_error,
)
from cacheapp.downloads.http.proxies import Proxies
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.plan import FileReport, Item, JobProgress, Plan
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.checksums import parse_checksum
from cacheapp.downloads.storage.partial import PartialName
from cacheapp.downloads.storage.run_directory import RunDirectory
from cacheapp.downloads.storage.sync_index import SyncedFile, SyncIndex

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
LOST = "another process took over the job"


@dataclasses.dataclass
class QueuedFile:
    """A file in the pool, with its transfer once that has begun, or a share in a split file."""

    item: Item
    transfer: Transfer | None = None
    seat: Seat = dataclasses.field(default_factory=Seat)


class JobRun:
    """One job in this process.

    `RunProgress` guards the state of its files; `RunDirectory` guards them against other runs of
    the job.
    """

    def __init__(
        self,
        plan: Plan,
        limits: TransferLimits,
        on_end: Callable[[], None],
        pool: ThreadPool[QueuedFile],
        sign: Signer | None = None,
        is_still_owner: Callable[[], bool] = lambda: True,
        sync_index: SyncIndex | None = None,
    ) -> None:
        """`is_still_owner`: whether the database still has the plan's token; `start` calls it.

        `sync_index`: where the versions on disk are recorded; `None`: all files are fetched.
        """
        self.plan = plan
        self.queue: FileQueue[QueuedFile] = FileQueue(plan.threads)  # guarded by the pool's lock
        self.left_out = ""  # set at most once, before the end
        self.retries_made = 0  # only grows; read without the lock
        self._pool = pool
        self._limits = dataclasses.replace(
            limits, throttle=limits.throttle.with_job_limit(plan.max_rate)
        )
        self._sign = sign or origin_signer(plan.headers, plan.logins)
        self._policy = UrlPolicy(plan.origins, plan.networks, plan.trusted)
        self._on_end = on_end
        self._pools = connections.pool_manager(
            plan.threads, Proxies.from_environment() if plan.proxied else None
        )
        self._job = plan.job.hex[:12]
        self._still_ours = is_still_owner
        self._sync_index = sync_index
        self._directory = RunDirectory(plan.directory, self._job, plan.token)
        self._previous = PreviousRuns(plan, self._directory, limits)
        self._began_s = clock.monotonic_s()
        self._owned_at_s = -math.inf  # without the lock: a stale value costs one more check
        self._progress = RunProgress(plan.done)

    def __repr__(self) -> str:
        waiting, active = self._pool.waiting(self)
        return f"<JobRun {self.plan.job} waiting={waiting} active={active}>"

    def start(self) -> None:
        """Create the run directory and begin; on `OSError` or `RuntimeError` nothing was begun."""
        try:
            self._start()
        except (OSError, RuntimeError) as exc:
            self.stop(f"could not be started: {getattr(exc, 'strerror', None) or exc}")
            raise

    def _start(self) -> None:
        plan = self.plan
        self._directory.take_over()
        if not self._still_ours():  # after the directory exists, or a new owner might not find it
            self._directory.remove_if_empty()
            self.stop(LOST, FileState.QUEUED, keep=True)
            return
        if plan.resumable:
            self._previous.load()
        self._pool.add(self)
        if plan.items:
            self.feed(plan.items)
        if not plan.more:
            self.finish_feeding()

    def feed(self, items: Sequence[Item]) -> None:
        """Queue more files. Ignored after `stop`."""
        self._progress.add(items)
        fetches = [(urlsplit(item.url).netloc.lower(), QueuedFile(item)) for item in items]
        self._pool.feed(self, fetches)

    def wait_for_queue_space(self, full: int) -> bool:
        """Wait until fewer than `full` files are queued; return False if the run was stopped."""
        while self.stopped is None:
            if self._pool.wait_until(lambda: len(self.queue) < full, clock.monotonic_s() + 0.1):
                return self.stopped is None
        return False

    def count_refused(self, files: int) -> None:
        """Count files that failed before they were queued."""
        self._progress.add_refused(files)

    def finish_feeding(self, left_out: str = "") -> None:
        """Declare that all files were passed to `feed`, but for those that `left_out` describes."""
        self.left_out = left_out
        self._progress.finish_feeding()
        self._pool.notify_waiters()
        self.on_attempt_end()

    def stop(
        self, reason: str, aborted: FileState = FileState.FAILED, *, keep: bool = False
    ) -> None:
        """Begin no more files and abort the active ones; return before those have ended.

        `aborted` is the state of the aborted files. `keep`: leave their partial files for a later
        run. Only the first call sets these.
        """
        transfers, keep = self._progress.stop(reason, aborted, keep=keep)
        self._pool.close(self)
        for transfer in transfers:
            transfer.abort(reason, keep=keep)
        self.on_attempt_end()

    def enforce_limits(self) -> None:
        """Stop attempts that receive almost no data, and the run if it exceeds its limits."""
        now_s = clock.monotonic_s()
        for transfer in self._progress.stalled(now_s):
            transfer.stall(f"stalled: almost no data for {self._limits.stall_s:g} s")
        plan = self.plan
        if plan.max_s is not None and now_s - self._began_s > plan.max_s:
            self.stop(f"took longer than {plan.max_s:g} s", keep=True)
        if plan.max_bytes is not None and self.changes()[1].bytes_done > plan.max_bytes:
            self.stop(f"has more than {plan.max_bytes} bytes")

    def join(self, within_s: float) -> bool:
        """Wait for the last transfer to end; return whether it has."""
        deadline_s = clock.monotonic_s() + within_s
        return self._pool.wait_until(lambda: self._is_over, deadline_s)

    @property
    def ended(self) -> bool:
        """Whether the last transfer has ended: no report will follow."""
        return self._pool.wait_until(lambda: self._is_over, 0.0)

    @property
    def _is_over(self) -> bool:
        # The caller holds the pool's lock.
        return self._progress.is_fed and not len(self.queue) and not self.queue.active

    @property
    def stopped(self) -> str | None:
        """The reason passed to `stop`, or `None`."""
        return self._progress.stopped

    def changes(self) -> tuple[list[FileReport], JobProgress]:
        """Return the reports not yet recorded, and the totals that belong to them."""
        return self._progress.changes()

    def active_files(self) -> list[tuple[str, int, int | None]]:
        """Return name, bytes received and length of each active file."""
        return self._progress.active_files()

    def mark_recorded(self, reports: Iterable[FileReport]) -> None:
        """Drop reports that were written to the database; newer reports of the same files stay."""
        self._progress.mark_recorded(reports)

    def has_partial_files(self) -> bool:
        """Return whether a later run may resume from the bytes of a file that failed."""
        return self._directory.has_partial_files()

    def clean(self, *, keep: bool = False) -> None:
        """Release resources and, unless `keep`, remove the partial files. Requires `ended`."""
        self._pool.remove(self)
        self._pools.clear()
        self._previous.close()
        if not keep:
            self._directory.remove_all()

    def on_attempt_end(self) -> None:
        """Notify the coordinator, once, when the last transfer has ended."""
        if self.ended and self._progress.claim_end():
            self._on_end()

    def work(self, file: QueuedFile, buffer: Buffer) -> AttemptResult:
        """Try one file, in a thread of the pool. Any error becomes that file's report."""
        try:
            return self._attempt(file, buffer)
        except OSError as exc:  # from the disk, before or after a request
            logger.warning("file %r of job %s: %s", file.item.name, self.plan.job, exc)
            self._report_unexpected(file, str(translate_error(exc)))
        except BaseException as exc:
            # The file must not stay in state running, and the thread has other files to serve.
            logger.exception("file %r of job %s", file.item.name, self.plan.job)
            self._report_unexpected(file, f"internal error: {type(exc).__name__}")
        return AttemptResult()

    def _attempt(self, file: QueuedFile, buffer: Buffer) -> AttemptResult:
        transfer = self._begin_share(file) if file.seat.worker else self._begin(file)
        if transfer is None:
            return AttemptResult()
        try:
            fetched = transfer.run(self._pools, buffer, file.seat)
        except NotModified:
            self._end(file, self._unmodified(file.item, transfer))
            return AttemptResult(host_ok=True)
        except TransferFailed as exc:
            return self._failed(file, transfer, exc)
        except TransferAborted as exc:
            if file.seat.ends_file:
                state = self._progress.aborted_are
                self._end(file, FileReport(file.item, state, error=str(exc), tries=transfer.tries))
            return AttemptResult()
        except PartsInTransfer:
            return AttemptResult(host_ok=True)
        if self._sync_index is not None:
            self._sync_index.append(_synced_file(file.item, fetched))
        self._end(file, success_report(file.item, fetched, transfer.tries))
        return AttemptResult(host_ok=True)

    def _end(self, file: QueuedFile, report: FileReport) -> None:
        """Record the last report of a file, and drop its shares that wait for a thread."""
        self._progress.end(report)
        if (transfer := file.transfer) is not None and transfer.was_split:
            self._pool.drop(self, lambda other: other.transfer is transfer)

    def _unmodified(self, item: Item, transfer: Transfer) -> FileReport:
        """Return the report of a file if its version on disk is still the current one."""
        found = self._sync_index.files[item.name] if self._sync_index is not None else None
        size, sha256 = (0, "") if found is None else (found.size, found.sha256)
        return FileReport(item, FileState.SUCCEEDED, size, "unchanged", sha256, transfer.tries)

    def _report_unexpected(self, file: QueuedFile, error: str) -> None:
        """Report a file after its attempt ended unexpectedly, and remove its partial file."""
        transfer = file.transfer
        if not file.seat.ends_file:
            return
        tries = 0 if transfer is None else transfer.tries
        self._end(file, FileReport(file.item, FileState.FAILED, error=error, tries=tries))
        if transfer is not None:
            with contextlib.suppress(OSError):
                transfer.discard()

    def _needs_fetch(self, file: QueuedFile) -> bool:
        """Return True if the job is still ours and the file is missing; otherwise report it."""
        report = None
        if not self._still_owned():  # the request would be useless
            self.stop(LOST, FileState.QUEUED, keep=True)
            report = FileReport(file.item, FileState.QUEUED)
        elif file.transfer is None:
            report = self._previous.completed(file.item)
        if report is not None:
            self._progress.end(report)
        return report is None

    def _still_owned(self) -> bool:
        """Return whether this run owned the job at most `_LOOK_S` ago.

        Only a hint: the kernel decides when a file is created in the run directory.
        """
        now_s = clock.monotonic_s()
        if now_s - self._owned_at_s > _LOOK_S:
            if not self._directory.exists():
                return False
            self._owned_at_s = now_s
        return True

    def _begin(self, file: QueuedFile) -> Transfer | None:
        """Return the transfer of a file; `None` if it need not be fetched, or cannot."""
        item = file.item
        if not self._needs_fetch(file):
            return None
        if file.transfer is None:
            try:
                file.transfer = Transfer(self._options(file), self._policy, self._limits)
            except ValueError as exc:
                self._progress.end(FileReport(item, FileState.FAILED, error=str(exc)))
                return None
        return file.transfer if self._progress.begin(item, file.transfer) else None

    def _begin_share(self, file: QueuedFile) -> Transfer | None:
        """Return the transfer of a split file; `None` if this thread is not needed any more."""
        transfer, worker = file.transfer, file.seat.worker
        if not self._still_owned():
            self.stop(LOST, FileState.QUEUED, keep=True)
        if transfer is None or worker is None or not worker.split.enter(worker):
            return None
        if self._progress.begin(file.item, transfer):
            return transfer
        worker.split.fail(worker, is_final=True)
        if worker.is_last:  # the run was stopped, and no other thread reports that
            self._end(
                file, FileReport(file.item, self._progress.aborted_are, error=self.stopped or "")
            )
        return None

    def _queue_shares(self, file: QueuedFile, workers: list[PartWorker]) -> None:
        """Queue shares of a split file, for threads that have nothing else to do."""
        host = urlsplit(file.item.url).netloc.lower()
        shares = [(host, QueuedFile(file.item, file.transfer, Seat(it))) for it in workers]
        with contextlib.suppress(RuntimeError):  # no thread can be started: this one fetches them
            self._pool.feed(self, shares)

    def _options(self, file: QueuedFile) -> TransferOptions:
        plan, item = self.plan, file.item
        return TransferOptions(
            url=item.url,
            target=plan.directory / item.name,
            partial_name=PartialName(self._directory.path, self._job, item.position, plan.token),
            checksums=(parse_checksum(item.checksum),) if item.checksum else (),
            size=item.size,
            etag=item.etag,
            sign=self._sign,
            leftover=self._previous.leftover(item),
            journal=self._previous.journal,
            sync=self._sync_index is not None,
            known=self._known_version(item),
            parts=plan.parts,
            queue_workers=functools.partial(self._queue_shares, file),
        )

    def _known_version(self, item: Item) -> KnownVersion | None:
        """Return the version on disk, if the request may depend on it.

        A file with a listed ETag or a given checksum is here because that has changed.
        """
        if self._sync_index is None or item.etag or item.checksum:
            return None
        found = self._sync_index.current(item.name, item.url, verify=self._limits.verify)
        return None if found is None else KnownVersion(found.size, found.etag, found.modified)

    def _failed(
        self, file: QueuedFile, transfer: Transfer, failed: TransferFailed
    ) -> AttemptResult:
        if not failed.retryable and file.seat.ends_file:
            report = self._after_takeover(file, transfer)
            if report is not None:
                self._end(file, report)
                return AttemptResult()
        worker = file.seat.worker
        is_final = file.seat.ends_file and not failed.retryable
        wait_s = None
        if failed.retryable:
            tried = (worker or transfer).tries_without_progress
            random_fraction = random.random()  # noqa: S311 (jitter, no secret)
            wait_s = self.plan.retries.retry_in_s(tried, random_fraction, failed.retry_after_s)
            # Of a split file, other threads may try again.
            is_final = wait_s is None and (worker is None or worker.split.give_up())
        host_ok = None if failed.retryable and not failed.slow_down else not failed.slow_down
        if is_final:
            self._give_up(file, transfer, failed)
        elif file.seat.ends_file:
            kept, tries = transfer.bytes_done, transfer.tries
            waits = FileReport(file.item, FileState.QUEUED, kept, str(failed), tries=tries)
            self._progress.wait(waits)
        if wait_s is None:
            return AttemptResult(host_ok)
        self.retries_made += 1
        return AttemptResult(
            host_ok,
            failed.retry_after_s or 0.0,
            file.item.url,
            wait_s,
            is_needed=file.seat.is_needed,
        )

    def _give_up(self, file: QueuedFile, transfer: Transfer, failed: TransferFailed) -> None:
        """Report the file as failed."""
        error, tries, kept = str(failed), transfer.tries, transfer.bytes_done
        error += f"; tried {tries} times" if tries > 1 else ""
        if (failed.retry_after_s or 0.0) > self.plan.retries.max_retry_after_s:
            error += f"; retry after {failed.retry_after_s:g} s, too long to wait"
        error += f"; {kept} bytes are kept for a retry" if kept else ""
        self._end(file, FileReport(file.item, FileState.FAILED, kept, error, tries=tries))

    def _after_takeover(self, file: QueuedFile, transfer: Transfer) -> FileReport | None:
        """Return the report of a file if a takeover explains its failure; `None` for a real one."""
        if not self._directory.exists():
            self.stop(LOST, FileState.QUEUED, keep=True)
            return FileReport(file.item, FileState.QUEUED, tries=transfer.tries)
        report = self._previous.published_during_takeover(file.item)
        if report is not None:
            transfer.discard()
        return report


def _synced_file(item: Item, fetched: FetchedFile) -> SyncedFile:
    return SyncedFile(
        *(item.name, item.url, fetched.size, fetched.mtime_ns),
        *(fetched.etag, fetched.modified, fetched.sha256, item.checksum),
    )
