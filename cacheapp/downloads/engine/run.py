"""Runs one job's transfers on the pool's threads; knows no database and no Django.

The coordinator (`host`) starts a `Run`, asks it now and then what has changed, and is called back
when its last transfer has ended. A run may be fed while it goes on: a listing of 100,000 objects
never stands in memory.
"""

import contextlib
import dataclasses
import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from cacheapp import clock
from cacheapp.downloads.engine.previous_runs import Inherited, succeeded
from cacheapp.downloads.engine.progress import Standing
from cacheapp.downloads.engine.scheduler import Queue
from cacheapp.downloads.engine.thread_pool import Pool, Tried
from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import Buffer, Limits, Wanted
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import Sign
from cacheapp.downloads.http.errors import TransferAborted, TransferFailed, explained
from cacheapp.downloads.http.url_policy import Guard
from cacheapp.downloads.plan import Item, Plan, Progress, Report
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.checksums import given_sha256
from cacheapp.downloads.storage.partial import Stem
from cacheapp.downloads.storage.run_directory import Fence

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
LOST = "its job was taken over by another process"


@dataclasses.dataclass
class Fetch:
    """A file in the pool: with its transfer, once it was begun."""

    item: Item
    transfer: Transfer | None = None


class Run:
    """One job in this process.

    What its files are at is guarded by `Standing`; what others do to them meanwhile is `fencing`'s
    affair.
    """

    def __init__(
        self,
        plan: Plan,
        limits: Limits,
        on_end: Callable[[], None],
        pool: Pool[Fetch],
        sign: Sign | None = None,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """`still_ours`: whether the database has the plan's token; asked once, as the run starts."""
        self.plan = plan
        self.queue: Queue[Fetch] = Queue(plan.threads)  # the pool's lock guards it
        self.retries_made = 0  # only ever grows; read without the lock
        self._pool = pool
        self._limits = limits
        self._sign = sign
        self._guard = Guard(plan.origins, plan.networks, plan.trusted)
        self._on_end = on_end
        self._client = connections.client(plan.threads)
        self._job = plan.job.hex[:12]
        self._still_ours = still_ours
        self._fence = Fence(plan.directory, self._job, plan.token)
        self._inherited = Inherited(plan, self._fence, limits.existing)
        self._began_s = clock.monotonic_s()
        self._stood_at_s = -math.inf  # without the lock: a late look is one more
        self._standing = Standing(plan.done)

    def __repr__(self) -> str:
        waiting, active = self._pool.waiting(self)
        return f"<Run {self.plan.job} waiting={waiting} active={active}>"

    def start(self) -> None:
        """Make the directory and begin; raise `OSError` or `RuntimeError`, and nothing was begun."""
        try:
            self._start()
        except (OSError, RuntimeError) as exc:
            self.stop(f"could not be started: {getattr(exc, 'strerror', None) or exc}")
            raise

    def _start(self) -> None:
        plan = self.plan
        self._fence.raise_()
        if not self._still_ours():  # after the fence is there, or a taker may not see it
            self._fence.withdraw()
            self.stop(LOST, FileState.QUEUED, keep=True)
            return
        if plan.resumable:
            self._inherited.look()
        self._pool.add(self)
        if plan.items:
            self.feed(plan.items)
        if not plan.more:
            self.no_more()

    def feed(self, items: Sequence[Item]) -> None:
        """Queue more files. Ignored once the run was stopped."""
        self._standing.add(items)
        fetches = [(urlsplit(item.url).netloc.lower(), Fetch(item)) for item in items]
        self._pool.feed(self, fetches)

    def wait_for_room(self, full: int) -> bool:
        """Wait until fewer than `full` files wait; return whether the run still goes on."""
        while self.stopped is None:
            if self._pool.wait_until(lambda: len(self.queue) < full, clock.monotonic_s() + 0.1):
                return self.stopped is None
        return False

    def count_refused(self, files: int) -> None:
        """Count files that failed before they were fed."""
        self._standing.add_refused(files)

    def no_more(self) -> None:
        """Say that all files were fed."""
        self._standing.no_more()
        self._pool.stir()
        self.worked()

    def stop(
        self, reason: str, aborted: FileState = FileState.FAILED, *, keep: bool = False
    ) -> None:
        """Begin no more files, and abort those on their way; returns before they have ended.

        `aborted` is what the aborted files are from then on. `keep`: leave their bytes for a run
        that goes on. The first call counts.
        """
        transfers, keep = self._standing.stop(reason, aborted, keep=keep)
        self._pool.close(self)
        for transfer in transfers:
            transfer.abort(reason, keep=keep)
        self.worked()

    def enforce(self) -> None:
        """End tries that get next to nothing, and the run when it has taken more than it may."""
        now_s = clock.monotonic_s()
        for transfer in self._standing.stalled(now_s):
            transfer.stall(f"stalled: hardly anything came for {self._limits.stall_s:g} s")
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
        """Whether the last transfer is done: no report comes after it."""
        return self._pool.wait_until(lambda: self._is_over, 0.0)

    @property
    def _is_over(self) -> bool:
        # Under the pool's lock.
        return self._standing.is_fed and not len(self.queue) and not self.queue.active

    @property
    def stopped(self) -> str | None:
        """Why `stop` was called, if it was."""
        return self._standing.stopped

    def changes(self) -> tuple[list[Report], Progress]:
        """Return the reports that are not recorded yet, and the numbers that go with them."""
        return self._standing.changes()

    def moving(self) -> list[tuple[str, int, int | None]]:
        """Return name, bytes and length of each file on its way."""
        return self._standing.moving()

    def recorded(self, reports: Iterable[Report]) -> None:
        """Forget reports that are safe; those that came since stay."""
        self._standing.recorded(reports)

    def clean(self, *, keep: bool = False) -> None:
        """Remove partial files, unless they are to be gone on from; for when all has ended."""
        self._pool.remove(self)
        self._client.clear()
        self._inherited.close()
        if not keep:
            self._fence.remove()

    def worked(self) -> None:
        """Tell the coordinator, once, when the last transfer has ended."""
        if self.ended and self._standing.tell_end():
            self._on_end()

    def work(self, file: Fetch, buffer: Buffer) -> Tried:
        """Try one file, in a thread of the pool; whatever goes wrong is that file's report."""
        try:
            return self._try(file, buffer)
        except OSError as exc:  # of the disk, before or after a request
            logger.warning("file %s of job %s: %s", file.item.name, self.plan.job, exc)
            self._broke(file, str(explained(exc)))
        except BaseException as exc:  # it must not look as if it ran, and the thread has others
            logger.exception("file %s of job %s", file.item.name, self.plan.job)
            self._broke(file, f"internal error: {type(exc).__name__}")
        return Tried()

    def _try(self, file: Fetch, buffer: Buffer) -> Tried:
        item = file.item
        transfer = self._begin(file) if self._is_to_be_asked_for(file) else None
        if transfer is None:
            return Tried()
        try:
            fetched = transfer.run(self._client, buffer)
        except TransferFailed as exc:
            return self._failed(file, transfer, exc)
        except TransferAborted as exc:
            state = self._standing.aborted_are
            self._standing.end(Report(item, state, error=str(exc), tries=transfer.tries))
            return Tried()
        self._standing.end(succeeded(item, fetched, transfer.tries))
        return Tried(well=True)

    def _broke(self, file: Fetch, error: str) -> None:
        """Report a file whose try ended as nobody has foreseen, and remove what it has."""
        transfer = file.transfer
        tries = 0 if transfer is None else transfer.tries
        self._standing.end(Report(file.item, FileState.FAILED, error=error, tries=tries))
        if transfer is not None:
            with contextlib.suppress(OSError):
                transfer.discard()

    def _is_to_be_asked_for(self, file: Fetch) -> bool:
        """Return whether the job is ours, and the file not there yet; if not, report it."""
        report = None
        if not self._stands():  # else the request would be for nothing
            self.stop(LOST, FileState.QUEUED, keep=True)
            report = Report(file.item, FileState.QUEUED)
        elif file.transfer is None:
            report = self._inherited.whole(file.item)
        if report is not None:
            self._standing.end(report)
        return report is None

    def _stands(self) -> bool:
        """Return whether the job was ours a moment ago. Whether it is shows when a file is made."""
        now_s = clock.monotonic_s()
        if now_s - self._stood_at_s > _LOOK_S:
            if not self._fence.stands():
                return False
            self._stood_at_s = now_s
        return True

    def _begin(self, file: Fetch) -> Transfer | None:
        item = file.item
        if file.transfer is None:
            try:
                file.transfer = Transfer(self._wanted(item), self._guard, self._limits)
            except ValueError as exc:
                self._standing.end(Report(item, FileState.FAILED, error=str(exc)))
                return None
        return file.transfer if self._standing.begin(item, file.transfer) else None

    def _wanted(self, item: Item) -> Wanted:
        plan = self.plan
        return Wanted(
            url=item.url,
            target=plan.directory / item.name,
            stem=Stem(self._fence.path, self._job, item.position, plan.token),
            sums=(given_sha256(item.sha256),) if item.sha256 else (),
            size=item.size,
            etag=item.etag,
            sign=self._sign,
            leftover=self._inherited.leftover(item),
            journal=self._inherited.journal,
        )

    def _failed(self, file: Fetch, transfer: Transfer, failed: TransferFailed) -> Tried:
        if not failed.again and not self._fence.stands():
            self.stop(LOST, FileState.QUEUED, keep=True)
            self._standing.end(Report(file.item, FileState.QUEUED, tries=transfer.tries))
            return Tried()
        if not failed.again and (report := self._inherited.named_meanwhile(file.item)) is not None:
            transfer.discard()
            self._standing.end(report)
            return Tried()
        retries = self.plan.retries
        wait_s = None
        if failed.again:
            luck = random.random()  # noqa: S311 (chance, no secret)
            wait_s = retries.again_in_s(transfer.tries, luck, failed.retry_after_s)
        rest_s = min(failed.retry_after_s or 0.0, retries.obey_s)
        well = None if failed.again and not failed.slow_down else not failed.slow_down
        error, tries = str(failed), transfer.tries
        if wait_s is None:
            transfer.discard()
            error += f"; tried {tries} times" if tries > 1 else ""
            self._standing.end(Report(file.item, FileState.FAILED, error=error, tries=tries))
            return Tried(well, rest_s)
        self.retries_made += 1
        waits = Report(file.item, FileState.QUEUED, transfer.bytes_done, error, tries=tries)
        self._standing.wait(waits)
        return Tried(well, rest_s, wait_s)
