"""What was given its final name, noted in the run's directory a moment before it happens.

The database hears of a file up to a second after it got its name. Who goes on after a kill in that
second finds a file with the wanted name, and has to know whether it is the one that was fetched:
it is, if the inode and the size are those that a note tells. Each run has a journal of its own; the
notes of those before it stay beside it, with the directory that was taken over (`fencing`). A line
is one `write` to a file opened for appending, so that lines of many threads do not mix.
"""

import contextlib
import dataclasses
import os
import re
from pathlib import Path

_LINE = re.compile(r"(\d{1,20}) (\d{1,20}) (\d{1,20}) ([0-9a-f]{1,64}|-)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that is about to have, or has, its final name."""

    size: int
    sha256: str
    inode: int


class Journal:
    """The notes of all runs of one job; `open` begins those of this one."""

    def __init__(self, directory: Path, token: int) -> None:
        self._directory = directory
        self._token = token
        self._descriptor: int | None = None
        self._read_bytes = 0

    def open(self) -> None:
        """Begin to append."""
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        self._descriptor = os.open(self._directory / f"{self._token}.journal", flags, 0o600)

    def append(self, position: int, published: PublishedFile) -> None:
        """Write a line; whoever is killed after it may or may not have renamed the file."""
        if self._descriptor is not None:
            facts = f"{position} {published.size} {published.inode} {published.sha256 or '-'}\n"
            os.write(self._descriptor, facts.encode())

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self) -> "JournalEntries":
        """Return all notes, those of the newest run last."""
        notes = JournalEntries()
        self._read_bytes = self._earlier_bytes()
        for path in sorted(self._directory.glob("*.journal"), key=_token_of):
            with contextlib.suppress(FileNotFoundError):  # taken over from us in this moment
                notes.add(path.read_text(encoding="ascii", errors="replace"))
        return notes

    def has_grown(self) -> bool:
        """Return whether an earlier run has noted something since `read`."""
        return self._earlier_bytes() > self._read_bytes

    def _earlier_bytes(self) -> int:
        found = 0
        for path in self._directory.glob("*.journal"):
            if _token_of(path) != self._token:
                with contextlib.suppress(FileNotFoundError):
                    found += path.stat().st_size
        return found


class JournalEntries:
    """What journals tell, by position. One position may have several notes: of several runs."""

    def __init__(self) -> None:
        self._found: dict[int, list[PublishedFile]] = {}

    def add(self, text: str) -> None:
        """Read the text of a journal; a line that is cut short, or no note at all, counts as none.

        A power cut may leave anything, most often zeros.
        """
        for line in text.split("\n")[:-1]:  # what is behind the last line's end was cut short
            if (noted := _LINE.fullmatch(line)) is None:
                continue
            position, size, inode, sha256 = noted.groups()
            published = PublishedFile(int(size), sha256.strip("-"), int(inode))
            self._found.setdefault(int(position), []).append(published)

    def matching(self, position: int, target: Path) -> PublishedFile | None:
        """Return the newest note that tells of the very file at `target`."""
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
