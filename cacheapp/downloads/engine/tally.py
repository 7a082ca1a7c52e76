"""The numbers of one run, kept as its files come and end. Pure; whoever has it guards it."""

from collections.abc import Iterable

from cacheapp.downloads.plan import FileReport, Item, JobProgress
from cacheapp.downloads.states import FileState


class RunTotals:
    """Counts the files of a run, and their bytes.

    Invariant: a file that was added and has not ended is in `_unknown`, or its size is in `_learned`,
    or it was known from the start and is part of `_known_bytes`.
    """

    def __init__(self, done: JobProgress) -> None:
        self._ended = done
        self._known_bytes = 0
        self._unknown: set[int] = set()  # by position, as the next
        self._learned: dict[int, int] = {}

    def add(self, items: Iterable[Item]) -> None:
        """Count files that are to be fetched."""
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
        """Take note of the size that an answer tells."""
        if size is not None and position in self._unknown:
            self._unknown.discard(position)
            self._learned[position] = size

    def end(self, report: FileReport) -> None:
        """Count a file that has ended; one that is put back (queued) is to be fetched no longer."""
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
        """Return the numbers with the bytes that are on their way; `more`: files are still to come."""
        ended = self._ended
        total = None
        if not more and not self._unknown:
            total = ended.bytes_done + self._known_bytes + sum(self._learned.values())
        return JobProgress(
            ended.files_done, ended.files_failed, ended.bytes_done + active_bytes, total
        )
