"""Look at paths and remove them, with no exception of a signal handler lost on the way.

`pathlib` and `shutil` ignore some errors of the system, and with them an `OSError` or a `ValueError`
that a handler raised just then (a time limit). An error of the system has an `errno`; these functions
ignore no other one.
"""

import errno
import os
import stat
from pathlib import Path

_MAX_LINKS = 40  # as the kernel
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
    """Return the path without links; of a path that does not exist, as far as it does.

    `os.path.realpath` is that too, but ignores each `OSError` where something is missing.
    """
    at, names, links = Path("/"), [*Path(path).absolute().parts[:0:-1]], 0
    while names:
        name = names.pop()
        if name == "..":
            at = at.parent
            continue
        target = _link_target(at / name) if links < _MAX_LINKS else None
        if target is None:
            at /= name
            continue
        links += 1
        at = Path("/") if target.is_absolute() else at
        names += target.parts[:0:-1] if target.is_absolute() else target.parts[::-1]
    return str(at)


def _link_target(path: Path) -> Path | None:
    """Return where a link leads; `None` if there is none, or none can be read."""
    try:
        return Path(os.readlink(path))
    except OSError as exc:
        if exc.errno is None:  # a handler's
            raise
        return None


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
