"""Create directories that only this user can access, and refuse those that others can change."""

import os
import stat
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.errors import StoreUnavailable


def private_directory(path: Path) -> Path:
    """Create the directory with mode 0700 unless it exists; return its path.

    Raises `StoreUnavailable` if the path is not a directory, belongs to another user, or is
    writable by the group or the world: files in it may be unpickled.
    """
    try:
        found = _create(path)
    except OSError as exc:
        if is_interruption(exc):
            raise
        raise StoreUnavailable(
            f"cannot create the directory {path}: {exc.strerror}; nothing was done"
        ) from exc
    if found.st_uid != os.geteuid():
        raise StoreUnavailable(
            f"the directory {path} belongs to user {found.st_uid}, expected {os.geteuid()}; "
            "nothing in it was touched"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreUnavailable(
            f"the directory {path} has mode {stat.S_IMODE(found.st_mode):04o}, so others can "
            "write to it; expected 0700; nothing in it was touched"
        )
    return path


def _create(path: Path) -> os.stat_result:
    """Create the directory unless it exists, also if it is removed at the same time; return its stat."""
    attempts = 10
    while True:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path.stat()
        except (FileExistsError, FileNotFoundError):
            attempts -= 1
            if not attempts or (os.path.lexists(path) and not path.is_dir()):
                raise
