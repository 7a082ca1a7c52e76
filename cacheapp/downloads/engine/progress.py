"""The state of one run's files: active transfers, reports to be recorded, and totals.

No I/O happens here. Pool threads write to a `RunProgress`, the coordinator reads from it.
"""

import threading
from collections.abc import Iterable, Sequence

from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.plan import FileReport, Item, JobProgress
from cacheapp.downloads.states import FileState


class RunTotals:
    """Counts of a run's files and bytes. Not thread-safe: its owner locks.

    Invariant: a file that was added and has not ended is in `_unknown`, or its size is in
    `_learned`, or its size was known from the start and is part of `_known_bytes`.
    """

    def __init__(self, done: JobProgress) -> None:
        self._ended = done
        self._known_bytes = 0
        self._unknown: set[int] = set()  # by position, like `_learned`
        self._learned: dict[int, int] = {}

    def add(self, items: Iterable[Item]) -> None:
        """Count files to be fetched."""
        for item in items:
            if item.size is None:
                self._unknown.add(item.position)
            else:
                self._known_bytes += item.size

    def add_refused(self, files: int) -> None:
        """Count files that failed before they were added."""
        ended = self._ended
        self._ended = JobProgress(ended.files_done, ended.files_failed + files, ended.bytes_done)

    def learn(self, position: int, size: int | None) -> None:
        """Record the size that a response announced."""
        if size is not None and position in self._unknown:
            self._unknown.discard(position)
            self._learned[position] = size

    def end(self, report: FileReport) -> None:
        """Count a file that has ended. A queued file is put back and no longer counted."""
        item, ended = report.item, self._ended
        if item.size is None:
            self._unknown.discard(item.position)
            self._learned.pop(item.position, None)
        else:
            self._known_bytes -= item.size
        whole = report.state is FileState.SUCCEEDED
        self._ended = JobProgress(
            ended.files_done + whole,
            ended.files_failed + (report.state is FileState.FAILED),
            ended.bytes_done + (report.bytes_done if whole else 0),
        )

    def progress(self, active_bytes: int, *, more: bool) -> JobProgress:
        """Return the totals, plus `active_bytes` in flight; `more`: further files will be added."""
        ended = self._ended
        total = None
        if not more and not self._unknown:
            total = ended.bytes_done + self._known_bytes + sum(self._learned.values())
        return JobProgress(
            ended.files_done, ended.files_failed, ended.bytes_done + active_bytes, total
        )


class RunProgress:
    """The shared state of one run.

    `_lock` guards all fields. It is never held during I/O or while the pool's lock is acquired.
    Invariant: an item waits in the queue, or its transfer is in `_transfers`, or its last report is
    final. Transfers begin under the lock, so `stop` misses none: it either finds the transfer or
    prevents it.
    """

    def __init__(self, done: JobProgress) -> None:
        """`done`: the counts of earlier runs."""
        self._lock = threading.Lock()
        self._transfers: dict[int, Transfer] = {}  # by position
        self._changed: dict[int, FileReport] = {}  # by position: the latest report not yet recorded
        self._totals = RunTotals(done)
        self._more = True
        self._end_claimed = False
        self._stopped: str | None = None
        self._aborted_are = FileState.FAILED
        self._keep = False

    def add(self, items: Sequence[Item]) -> None:
        """Count files to be fetched."""
        with self._lock:
            self._totals.add(items)

    def add_refused(self, files: int) -> None:
        """Count files that failed before they were added."""
        with self._lock:
            self._totals.add_refused(files)

    def finish_feeding(self) -> None:
        """Record that all files were added."""
        with self._lock:
            self._more = False

    def begin(self, item: Item, transfer: Transfer) -> bool:
        """Register the transfer of a file; return False if the run was stopped."""
        with self._lock:
            if self._stopped is not None:
                return False
            self._transfers[item.position] = transfer
            self._changed[item.position] = FileReport(item, FileState.RUNNING)
            return True

    def wait(self, report: FileReport) -> None:
        """Record that a file waits for its next attempt, unless another thread has ended it."""
        with self._lock:
            if report.item.position in self._transfers:
                self._changed[report.item.position] = report

    def end(self, report: FileReport) -> None:
        """Record the last report of a file."""
        with self._lock:
            self._transfers.pop(report.item.position, None)
            self._changed[report.item.position] = report
            self._totals.end(report)

    def stop(self, reason: str, aborted: FileState, *, keep: bool) -> tuple[list[Transfer], bool]:
        """Prevent further transfers; return those to abort, and whether to keep their bytes.

        Only the first call sets the reason, the state of aborted files and `keep`.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped, self._aborted_are, self._keep = reason, aborted, keep
            return list(self._transfers.values()), self._keep

    @property
    def stopped(self) -> str | None:
        """The reason passed to `stop`, or `None`."""
        with self._lock:
            return self._stopped

    @property
    def aborted_are(self) -> FileState:
        """The state of the files that were active at the stop."""
        with self._lock:
            return self._aborted_are

    @property
    def is_fed(self) -> bool:
        """Whether no file will be added. Read without the lock: both fields change only once."""
        return not self._more or self._stopped is not None

    def stalled(self, now_s: float) -> list[Transfer]:
        """Return the transfers that receive almost no data."""
        with self._lock:
            found = list(self._transfers.values())
        return [transfer for transfer in found if transfer.is_stalled(now_s)]

    def changes(self) -> tuple[list[FileReport], JobProgress]:
        """Return the reports not yet recorded, and the totals that belong to them."""
        with self._lock:
            moving = 0
            for position, transfer in self._transfers.items():
                self._totals.learn(position, transfer.total)
                moving += transfer.bytes_done
            return list(self._changed.values()), self._totals.progress(moving, more=self._more)

    def active_files(self) -> list[tuple[str, int, int | None]]:
        """Return name, bytes received and length of each active file."""
        with self._lock:
            found = list(self._transfers.values())
        return [(transfer.name, transfer.bytes_done, transfer.total) for transfer in found]

    def mark_recorded(self, reports: Iterable[FileReport]) -> None:
        """Drop reports that were written to the database; newer reports of the same files stay."""
        with self._lock:
            for report in reports:
                self._drop(report)

    def _drop(self, report: FileReport) -> None:
        if self._changed.get(report.item.position) is report:
            del self._changed[report.item.position]

    def claim_end(self) -> bool:
        """Return True on the first call only."""
        with self._lock:
            first, self._end_claimed = not self._end_claimed, True
            return first
