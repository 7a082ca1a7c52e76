"""Look at paths and remove them, with no exception of a signal handler lost on the way.

`pathlib` and `shutil` ignore some errors of the system, and with them an `OSError` or a `ValueError`
that a handler raised just then (a time limit). An error of the system has an `errno`; these functions
ignore no other one.
"""

import errno
import os
import stat
from pathlib import Path

_ABSENT = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP])


def exists(path: Path) -> bool:
    """Return True if something is at the path, or where its links lead."""
    try:
        os.stat(path)
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise
        return False
    return True


def real_path(path: str | os.PathLike[str]) -> str:
    """Return the path without links; of a path that does not exist, as far as it does."""
    try:
        return os.path.realpath(path, strict=True)
    except OSError as exc:
        if exc.errno is None:  # a handler's
            raise
        return os.path.realpath(path)


def is_directory(path: Path) -> bool:
    """Return True if a directory is at the path itself, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise
        return False


def entries(directory: Path, start: str) -> list[Path]:
    """Return the entries whose names begin so. `Path.glob` compiles a pattern, which loses errors too."""
    return [directory / name for name in os.listdir(directory) if name.startswith(start)]


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory with all that is in it, as far as that is possible."""
    try:
        if not is_directory(path):
            os.unlink(path)
            return
        for name in os.listdir(path):
            remove(path / name)
        os.rmdir(path)
    except OSError as exc:
        if exc.errno is None:  # a handler's
            raise
