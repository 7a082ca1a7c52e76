"""Records which ranges of a partial file are on disk, for a file that several connections fetch.

    <name of the partial file>.ranges       one line, "<first byte> <end>", for each range

Invariant: every byte of a recorded range is in the partial file. So a run that was killed at any
point is resumed from the recorded ranges. This holds because:

- A line is appended after its bytes were written to the partial file. Bytes without a line are
  fetched again: at most one read of each connection.
- The journal has the bytes that the file has already before the file gets the name of one with
  holes (`PartialFile.become_split`), and before any byte is written beyond them.
- A file of that name without a journal is not resumed.
- Each line ends with a line end; a truncated or invalid one is ignored. The ranges belong to the
  representation that the name describes, like the bytes.

After a power cut without `--fsync`, recorded bytes may be zeros, as in any partial file.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

Span = tuple[int, int]
"""The first byte of a range, and the one after its last."""

_LINE = re.compile(r"(\d{1,18}) (\d{1,18})", re.ASCII)


def journal_path(partial: Path) -> Path:
    """Return the path of the journal of a partial file."""
    return partial.with_suffix(".ranges")


def read_ranges(partial: Path, total: int) -> tuple[Span, ...]:
    """Return the recorded ranges of a partial file in order, merged; none without a journal."""
    try:
        text = journal_path(partial).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ()
    found = (_LINE.fullmatch(line) for line in text.split("\n")[:-1])
    spans = ((int(it[1]), int(it[2])) for it in found if it)
    return merge(span for span in spans if span[0] < span[1] <= total)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same bytes as few ranges in order."""
    merged: list[Span] = []
    for first, end in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return tuple(merged)


class RangeJournal:
    """The journal of one partial file. Threads may append at the same time."""

    def __init__(self, partial: Path, spans: Iterable[Span]) -> None:
        """Create it, closed, with the ranges that the partial file has already."""
        self._path = journal_path(partial)
        self._descriptor = -1
        text = "".join(f"{first} {end}\n" for first, end in spans)
        self._path.write_text(text, encoding="ascii")

    def open(self) -> None:
        """Open it for appending."""
        self._descriptor = os.open(self._path, os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC)

    def append(self, first: int, end: int) -> None:
        """Record a range that was written to the partial file."""
        os.write(self._descriptor, b"%d %d\n" % (first, end))

    def close(self) -> None:
        """Close the file and keep it."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
