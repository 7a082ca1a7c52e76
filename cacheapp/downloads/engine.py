"""Runs one job's transfers with threads; knows no database and no Django.

The coordinator (`host`) starts a `Run`, asks it now and then what has changed, and is called back
when its last thread has ended. Each thread takes the next file until none is left, so the slowest
file delays nobody but itself.
"""

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from cacheapp import clock
from cacheapp.downloads import connections
from cacheapp.downloads.guards import Guard
from cacheapp.downloads.states import FileState
from cacheapp.downloads.transfer import (
    Buffer,
    Limits,
    Transfer,
    TransferAborted,
    TransferFailed,
    partial_path,
    remove_partials,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Item:
    """One file to fetch."""

    row: int
    """Its row in the database; the engine only hands it back."""
    position: int
    url: str
    name: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    job: UUID
    directory: Path
    threads: int
    origins: frozenset[str]
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file."""

    item: Item
    state: FileState
    bytes_done: int = 0
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is, in numbers."""

    files_done: int = 0
    files_failed: int = 0
    bytes_done: int = 0


class Run:
    """The threads of one job in this process.

    `_lock` guards all fields below it, and is never held during I/O. Invariant: an item is in
    `_waiting`, or its transfer is in `_active`, or its last report is final. Transfers are begun
    under the lock, so `stop` misses none: it either finds the transfer or prevents it.
    """

    def __init__(self, plan: Plan, limits: Limits, on_end: Callable[[], None]) -> None:
        self.plan = plan
        self._limits = limits
        self._guard = Guard(plan.origins)
        self._on_end = on_end
        self._client = connections.client(plan.threads)
        self._threads: list[threading.Thread] = []  # the coordinator's alone
        self._lock = threading.Lock()
        self._waiting = deque(plan.items)
        self._active: dict[int, Transfer] = {}  # by position
        self._changed: dict[int, Report] = {}  # by position: the last report not yet recorded
        self._progress = Progress()
        self._alive = 0
        self._stopped: str | None = None
        self._aborted_are = FileState.FAILED

    def __repr__(self) -> str:
        with self._lock:
            return (
                f"<Run {self.plan.job} waiting={len(self._waiting)} active={len(self._active)} "
                f"threads={self._alive} {self._progress}>"
            )

    def start(self) -> None:
        """Make the directory and start the threads; raise `OSError` or `RuntimeError`.

        The threads are daemons: they must not hold up the end of their worker, which hands over.
        """
        self.plan.directory.mkdir(parents=True, exist_ok=True)
        wanted = min(self.plan.threads, len(self.plan.items))
        for number in range(wanted):
            name = f"download-{self.plan.job.hex[:8]}-{number}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            with self._lock:
                self._alive += 1
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: go on with fewer, if any
                with self._lock:
                    self._alive -= 1
                if not self._threads:
                    raise
                logger.warning("job %s has %d threads of %d", self.plan.job, number, wanted)
                break
            self._threads.append(thread)

    def stop(self, reason: str, aborted: FileState = FileState.FAILED) -> None:
        """Begin no more files, and abort those on their way; returns before the threads end.

        `aborted` is what the aborted files are from then on. The first call counts.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped, self._aborted_are = reason, aborted
            active = list(self._active.values())
        for transfer in active:
            transfer.abort(reason)

    def abort_stalled(self) -> None:
        """End the transfers that get next to nothing; each is one failed file."""
        now_s = clock.monotonic_s()
        with self._lock:
            stalled = [transfer for transfer in self._active.values() if transfer.is_stalled(now_s)]
        for transfer in stalled:
            transfer.abort(f"stalled: hardly anything came for {self._limits.stall_s:g} s")

    def join(self, within_s: float) -> bool:
        """Wait for the threads to end; return whether they have."""
        deadline_s = clock.monotonic_s() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - clock.monotonic_s()))
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether the last thread is done: no report comes after it."""
        with self._lock:
            return self._alive == 0

    @property
    def stopped(self) -> str | None:
        """Why `stop` was called, if it was."""
        with self._lock:
            return self._stopped

    def changes(self) -> tuple[list[Report], Progress]:
        """Return the reports that are not recorded yet, and the numbers that go with them."""
        with self._lock:
            moving = sum(transfer.bytes_done for transfer in self._active.values())
            progress = self._progress
            reports = list(self._changed.values())
        return reports, dataclasses.replace(progress, bytes_done=progress.bytes_done + moving)

    def recorded(self, reports: Iterable[Report]) -> None:
        """Forget reports that are safe; those that came since stay."""
        with self._lock:
            for report in reports:
                if self._changed.get(report.item.position) is report:
                    del self._changed[report.item.position]

    def clean(self) -> None:
        """Remove partial files and close idle connections; for when the threads have ended."""
        self._client.clear()
        remove_partials(self.plan.directory)

    def _work(self) -> None:
        buffer = Buffer()
        try:
            while begun := self._begin():
                self._end(begun[0], self._fetch(*begun, buffer))
        finally:
            with self._lock:
                self._alive -= 1
                last = self._alive == 0
            if last:
                self._on_end()

    def _begin(self) -> tuple[Item, Transfer] | None:
        with self._lock:
            if self._stopped is not None or not self._waiting:
                return None
            item = self._waiting.popleft()
            directory = self.plan.directory
            partial = partial_path(directory, item.position)
            transfer = Transfer(self._guard, self._limits, partial, directory / item.name)
            self._active[item.position] = transfer
            self._changed[item.position] = Report(item, FileState.RUNNING)
            return item, transfer

    def _fetch(self, item: Item, transfer: Transfer, buffer: Buffer) -> Report:
        try:
            size = transfer.run(self._client, item.url, buffer)
        except TransferFailed as exc:
            return Report(item, FileState.FAILED, error=str(exc))
        except TransferAborted as exc:
            with self._lock:
                return Report(item, self._aborted_are, error=str(exc))
        except Exception as exc:  # whatever it is, it is one file's, and must not look running
            logger.exception("file %s of job %s", item.name, self.plan.job)
            return Report(item, FileState.FAILED, error=f"internal error: {type(exc).__name__}")
        return Report(item, FileState.SUCCEEDED, bytes_done=size)

    def _end(self, item: Item, report: Report) -> None:
        with self._lock:
            del self._active[item.position]
            self._changed[item.position] = report
            self._progress = Progress(
                self._progress.files_done + (report.state is FileState.SUCCEEDED),
                self._progress.files_failed + (report.state is FileState.FAILED),
                self._progress.bytes_done + report.bytes_done,
            )
