"""Where the files of one run stand: which are on their way, and what is to be recorded of the others."""

import threading
from collections.abc import Iterable, Sequence

from cacheapp.downloads.engine.tally import RunTotals
from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.plan import FileReport, Item, JobProgress
from cacheapp.downloads.states import FileState


class RunProgress:
    """What threads of the pool write, and the coordinator reads.

    `_lock` guards all fields, and is never held during I/O, nor while the pool's is taken.
    Invariant: an item waits in the queue, or its transfer is in `_transfers`, or its last report is
    final. Transfers are begun under the lock, so `stop` misses none: it either finds the transfer
    or prevents it.
    """

    def __init__(self, done: JobProgress) -> None:
        """`done`: what earlier runs have done."""
        self._lock = threading.Lock()
        self._transfers: dict[int, Transfer] = {}  # by position
        self._changed: dict[int, FileReport] = {}  # by position: the last report not yet recorded
        self._totals = RunTotals(done)
        self._more = True
        self._end_claimed = False
        self._stopped: str | None = None
        self._aborted_are = FileState.FAILED
        self._keep = False

    def add(self, items: Sequence[Item]) -> None:
        """Count files that are to be fetched."""
        with self._lock:
            self._totals.add(items)

    def add_refused(self, files: int) -> None:
        """Count files that failed before they were added."""
        with self._lock:
            self._totals.add_refused(files)

    def finish_feeding(self) -> None:
        """All files were added."""
        with self._lock:
            self._more = False

    def begin(self, item: Item, transfer: Transfer) -> bool:
        """Take note that a file is on its way; return whether it may be."""
        with self._lock:
            if self._stopped is not None:
                return False
            self._transfers[item.position] = transfer
            self._changed[item.position] = FileReport(item, FileState.RUNNING)
            return True

    def wait(self, report: FileReport) -> None:
        """Take note that a file waits for its next try."""
        with self._lock:
            self._changed[report.item.position] = report

    def end(self, report: FileReport) -> None:
        """Take note of a file's last report."""
        with self._lock:
            self._transfers.pop(report.item.position, None)
            self._changed[report.item.position] = report
            self._totals.end(report)

    def stop(self, reason: str, aborted: FileState, *, keep: bool) -> tuple[list[Transfer], bool]:
        """Let nothing more begin; return what is to be aborted, and whether to keep its bytes.

        The first call says why, and what becomes of the files.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped, self._aborted_are, self._keep = reason, aborted, keep
            return list(self._transfers.values()), self._keep

    @property
    def stopped(self) -> str | None:
        """Why `stop` was called, if it was."""
        with self._lock:
            return self._stopped

    @property
    def aborted_are(self) -> FileState:
        """What the files are that were on their way at a stop."""
        with self._lock:
            return self._aborted_are

    @property
    def is_fed(self) -> bool:
        """Whether no file will come. Without the lock, as what is read changes one way only."""
        return not self._more or self._stopped is not None

    def stalled(self, now_s: float) -> list[Transfer]:
        """Return the transfers that get next to nothing."""
        with self._lock:
            return [found for found in self._transfers.values() if found.is_stalled(now_s)]

    def changes(self) -> tuple[list[FileReport], JobProgress]:
        """Return the reports that are not recorded yet, and the numbers that go with them."""
        with self._lock:
            moving = 0
            for position, transfer in self._transfers.items():
                self._totals.learn(position, transfer.total)
                moving += transfer.bytes_done
            return list(self._changed.values()), self._totals.progress(moving, more=self._more)

    def moving(self) -> list[tuple[str, int, int | None]]:
        """Return name, bytes and length of each file on its way."""
        with self._lock:
            found = list(self._transfers.values())
        return [(transfer.name, transfer.bytes_done, transfer.total) for transfer in found]

    def recorded(self, reports: Iterable[FileReport]) -> None:
        """Forget reports that are safe; those that came since stay."""
        with self._lock:
            for report in reports:
                if self._changed.get(report.item.position) is report:
                    del self._changed[report.item.position]

    def claim_end(self) -> bool:
        """Return whether this is the first call."""
        with self._lock:
            first, self._end_claimed = not self._end_claimed, True
            return first
