"""Records each published file in the run's directory, just before it gets its final name.

The database is up to a second behind the disk. If a worker is killed in that second, the next owner
finds a file with the final name and must know whether this job fetched it: it did, if inode and
size match an entry. Each run has its own journal; journals of earlier runs are kept beside it after
a takeover (`run_directory`). An entry is one `write` to a file opened for appending, so lines of
several threads do not mix.
"""

import contextlib
import dataclasses
import os
import re
from pathlib import Path

_LINE = re.compile(r"(\d{1,20}) (\d{1,20}) (\d{1,20}) ([0-9a-f]{1,64}|-)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that has its final name, or is about to get it."""

    size: int
    sha256: str
    inode: int


class Journal:
    """The journals of all runs of one job; `open` creates the one of this run."""

    def __init__(self, directory: Path, token: int) -> None:
        self._directory = directory
        self._token = token
        self._descriptor: int | None = None
        self._read_bytes = 0

    def open(self) -> None:
        """Create the journal and open it for appending."""
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        self._descriptor = os.open(self._directory / f"{self._token}.journal", flags, 0o600)

    def append(self, position: int, published: PublishedFile) -> None:
        """Write an entry.

        If the process is killed after it, the file may or may not have been renamed.
        """
        if self._descriptor is not None:
            facts = f"{position} {published.size} {published.inode} {published.sha256 or '-'}\n"
            os.write(self._descriptor, facts.encode())

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self) -> "JournalEntries":
        """Return the entries of all runs, the newest run last."""
        notes = JournalEntries()
        self._read_bytes = self._earlier_bytes()
        for path in sorted(self._directory.glob("*.journal"), key=_token_of):
            with contextlib.suppress(FileNotFoundError):  # a new owner took it over at this moment
                notes.add(path.read_text(encoding="ascii", errors="replace"))
        return notes

    def has_grown(self) -> bool:
        """Return whether an earlier run has added an entry since `read`."""
        return self._earlier_bytes() > self._read_bytes

    def _earlier_bytes(self) -> int:
        found = 0
        for path in self._directory.glob("*.journal"):
            if _token_of(path) != self._token:
                with contextlib.suppress(FileNotFoundError):
                    found += path.stat().st_size
        return found


class JournalEntries:
    """Journal entries by position. A position may have entries of several runs."""

    def __init__(self) -> None:
        self._found: dict[int, list[PublishedFile]] = {}

    def add(self, text: str) -> None:
        """Parse a journal; a truncated or invalid line is ignored.

        A power cut may leave any content, most often zeros.
        """
        for line in text.split("\n")[:-1]:  # text after the last line end was truncated
            if (noted := _LINE.fullmatch(line)) is None:
                continue
            position, size, inode, sha256 = noted.groups()
            published = PublishedFile(int(size), sha256.strip("-"), int(inode))
            self._found.setdefault(int(position), []).append(published)

    def matching(self, position: int, target: Path) -> PublishedFile | None:
        """Return the newest entry that matches the file at `target` by inode and size."""
        noted = self._found.get(position)
        if not noted:
            return None
        try:
            found = target.stat(follow_symlinks=False)
        except OSError:
            return None
        there = (found.st_size, found.st_ino)
        return next((it for it in reversed(noted) if (it.size, it.inode) == there), None)


def _token_of(path: Path) -> int:
    digits = path.name.removesuffix(".journal")
    return int(digits) if digits.isascii() and digits.isdigit() else 0
