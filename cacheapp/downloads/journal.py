"""What was given its final name, noted beside the files a moment before it happens.

The database hears of a file up to a second after it got its name. Who goes on after a kill in that
second finds a file with the wanted name, and has to know whether it is the one that was fetched:
it is, if the inode and the size are those that the journal tells. A line is one `write` to a file
opened for appending, so that lines of many threads do not mix.
"""

import dataclasses
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that is about to have, or has, its final name."""

    size: int
    sha256: str
    inode: int


class Journal:
    """The notes of one job in one directory."""

    def __init__(self, directory: Path, job: str) -> None:
        self.path = directory / f".{job}.journal"
        self._descriptor: int | None = None

    def open(self) -> None:
        """Begin to append."""
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)

    def note(self, position: int, published: Published) -> None:
        """Write a line; whoever is killed after it may or may not have renamed the file."""
        if self._descriptor is not None:
            facts = f"{position} {published.size} {published.inode} {published.sha256 or '-'}\n"
            os.write(self._descriptor, facts.encode())

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self) -> dict[int, Published]:
        """Return the last note of each position; a line that was cut short counts as none."""
        try:
            lines = self.path.read_text(encoding="ascii").splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            if not line.endswith("\n") or len(line.split()) != 4:  # noqa: PLR2004 (a whole line's)
                continue
            position, size, inode, sha256 = line.split()
            found[int(position)] = Published(int(size), sha256.strip("-"), int(inode))
        return found


def is_there(published: Published, target: Path) -> bool:
    """Return whether `target` is that very file."""
    try:
        found = target.stat(follow_symlinks=False)
    except OSError:
        return False
    return (found.st_size, found.st_ino) == (published.size, published.inode)
