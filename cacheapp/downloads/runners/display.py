"""Shows a running job at a terminal: files, bytes, rate, time left, and the files in transfer."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from cacheapp.downloads.runners.foreground import Snapshot

MAX_FILES_SHOWN = 8


class Display:
    """Progress bars; nothing if the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        shown = console.is_terminal
        name = TextColumn(
            "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)
        )
        self._files = Progress(
            name,
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )
        self._bytes = Progress(
            name,
            BarColumn(20),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=console,
            disable=not shown,
            transient=True,
        )
        self._progress = _Both(self._files, self._bytes, console, shown=shown)
        self._all = self._files.add_task("files", total=None, note="")
        self._sum = self._bytes.add_task("bytes", total=None)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Update the bars."""
        progress = snapshot.progress
        ended = progress.files_done + progress.files_failed
        failed = f"{progress.files_failed} failed " if progress.files_failed else ""
        again = f"{snapshot.retries} retried " if snapshot.retries else ""
        listing = "" if snapshot.listed_all else "listing… "
        total = snapshot.files_total or None
        self._files.update(
            self._all, completed=ended, total=total, note=f"{failed}{again}{listing}".strip()
        )
        self._bytes.update(self._sum, completed=progress.bytes_done)
        self._show_active(snapshot.active_files[:MAX_FILES_SHOWN])

    def _show_active(self, active_files: list[tuple[str, int, int | None]]) -> None:
        for name in self._bars.keys() - {name for name, *_ in active_files}:
            self._bytes.remove_task(self._bars.pop(name))
        for name, done, total in active_files:
            if name not in self._bars:
                self._bars[name] = self._bytes.add_task(name, total=total)
            self._bytes.update(self._bars[name], completed=done, total=total)


class _Both:
    """Two progress displays, one below the other."""

    def __init__(self, first: Progress, second: Progress, console: Console, *, shown: bool) -> None:
        from rich.console import Group  # noqa: PLC0415 (with Live, for terminals alone)
        from rich.live import Live  # noqa: PLC0415

        group = Group(first, second)
        self._live = Live(group, console=console, refresh_per_second=8) if shown else None

    def start(self) -> None:
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
