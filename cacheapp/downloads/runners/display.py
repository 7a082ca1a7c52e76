"""Shows a running job: bars at a terminal, else a line every few seconds."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cacheapp import clock
from cacheapp.downloads.runners.foreground import Snapshot
from cacheapp.downloads.runners.units import format_bytes, format_rate, format_seconds, shorten

MAX_FILES_SHOWN = 8
LINE_S = 5.0
"""Seconds between two lines where the output is no terminal."""
_NAME_SHARE = 0.4
_BAR_CELLS = 20
_FIGURES_CELLS = len(" 1023.9 KiB of 1023.9 MiB ")
_LEAST_BAR_CELLS, _LEAST_NAME_CELLS = 5, 8


class Display:
    """The progress of one job; nothing if the console is quiet."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live  # noqa: PLC0415 (for terminals alone)

        self._console = console
        self._snapshot: Snapshot | None = None
        self._next_line_s = clock.monotonic_s() + LINE_S
        self._live: Live | None = None
        if console.is_terminal and not console.quiet:
            self._live = Live(
                get_renderable=self._render, console=console, refresh_per_second=8, transient=True
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show a newer state of the job."""
        self._snapshot = snapshot
        now_s = clock.monotonic_s()
        if self._live is None and now_s >= self._next_line_s:
            self._next_line_s = now_s + LINE_S
            line = progress_line(snapshot)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        if self._snapshot is None:
            return Text()
        return bars(self._snapshot, self._console.width)


def progress_line(snapshot: Snapshot) -> str:
    """Return one line for a log."""
    parts = [_files(snapshot), _bytes(snapshot), format_rate(snapshot.rate_bps), *_left(snapshot)]
    return ", ".join(parts)


def bars(snapshot: Snapshot, width: int) -> Group:
    """Return the lines of a terminal of this width: the job's, then those of files in transfer."""
    progress = snapshot.progress
    ended = progress.files_done + progress.files_failed
    rate = [_bytes(snapshot), format_rate(snapshot.rate_bps), *_left(snapshot)]
    job = _Lines(len("files"), _BAR_CELLS)
    job.add("files", ended, snapshot.files_total, _files(snapshot))
    job.add("bytes", progress.bytes_done, progress.bytes_total, ", ".join(rate))
    name_cells = max(_LEAST_NAME_CELLS, int(width * _NAME_SHARE))
    bar_cells = width - name_cells - _FIGURES_CELLS
    files = _Lines(name_cells, min(_BAR_CELLS, max(_LEAST_BAR_CELLS, bar_cells)))
    for name, done, total in snapshot.active_files[:MAX_FILES_SHOWN]:
        of = "" if total is None else f" of {format_bytes(total)}"
        files.add(name, done, total, f"{format_bytes(done)}{of}")
    return Group(job.table, files.table)


class _Lines:
    """Lines of a name, a bar and figures."""

    def __init__(self, name_cells: int, bar_cells: int) -> None:
        self._name_cells, self._bar_cells = name_cells, bar_cells
        self.table = Table.grid(padding=(0, 1, 0, 0))
        self.table.add_column(no_wrap=True, max_width=name_cells)
        self.table.add_column(min_width=bar_cells)
        self.table.add_column(no_wrap=True, overflow="ellipsis")

    def add(self, name: str, done: int, total: int | None, figures: str) -> None:
        """Add a line; the bar is empty while the total is unknown."""
        bar = ProgressBar(total or 1, done if total else 0, width=self._bar_cells)
        self.table.add_row(Text(shorten(name, self._name_cells)), bar, Text(figures))


def _files(snapshot: Snapshot) -> str:
    progress = snapshot.progress
    ended = progress.files_done + progress.files_failed
    parts = [f"{ended} of {snapshot.files_total} files"]
    if progress.files_failed:
        parts.append(f"{progress.files_failed} failed")
    if snapshot.retries:
        parts.append(f"{snapshot.retries} retried")
    if not snapshot.listed_all:
        parts.append("listing…")
    return ", ".join(parts)


def _bytes(snapshot: Snapshot) -> str:
    total = snapshot.progress.bytes_total
    of = "" if total is None else f" of {format_bytes(total)}"
    return f"{format_bytes(snapshot.progress.bytes_done)}{of}"


def _left(snapshot: Snapshot) -> list[str]:
    return [] if snapshot.eta_s is None else [f"{format_seconds(snapshot.eta_s)} left"]
