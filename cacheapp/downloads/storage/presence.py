"""Checks whether a file that is reported as complete is on disk, by its size and, if given, its digest."""

import hashlib
import stat
from pathlib import Path

from cacheapp.downloads.storage.checksums import parse_checksum


def is_present(path: Path, size: int | None, checksum: str = "") -> bool:
    """Return whether `path` is a regular file of this size, and has the checksum if one is given.

    `size`: `None` if it is not known. `checksum`: in the form of `checksums.read_checksum`. Raise
    `OSError` if the file cannot be examined.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode) or size not in {None, found.st_size}:
        return False
    if not checksum:
        return True
    wanted = parse_checksum(checksum)
    with path.open("rb") as file:
        digest = hashlib.file_digest(
            file, lambda: hashlib.new(wanted.algorithm, usedforsecurity=False)
        )
    return digest.digest() == wanted.digest
