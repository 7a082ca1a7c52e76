"""Directories that belong to this user alone."""

import os
import stat
from pathlib import Path

from cacheapp.errors import StoreUnavailable


def private_directory(path: Path) -> Path:
    """Make the directory with mode 0700 unless it is there; refuse one that others could change.

    Raises `StoreUnavailable` for what is no directory, someone else's, or writable by the group
    or the world: what is read from it may be unpickled.
    """
    try:
        found = _made(path)
    except OSError as exc:
        raise StoreUnavailable(f"cannot make the directory {path}: {exc.strerror}") from exc
    if found.st_uid != os.geteuid():
        raise StoreUnavailable(
            f"the directory {path} belongs to user {found.st_uid}, expected {os.geteuid()}; "
            "nothing in it was touched"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreUnavailable(
            f"the directory {path} has mode {stat.S_IMODE(found.st_mode):04o}, so that others may "
            "write to it; expected 0700; nothing in it was touched"
        )
    return path


def _made(path: Path) -> os.stat_result:
    """Make the directory unless it is there, and again should it go meanwhile; return what it is."""
    attempts = 10
    while True:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path.stat()
        except (FileExistsError, FileNotFoundError):
            attempts -= 1
            if not attempts or (os.path.lexists(path) and not path.is_dir()):
                raise
