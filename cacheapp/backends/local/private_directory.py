"""Create directories that only this user can change, and refuse those that others can replace."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.paths import exists
from cacheapp.directory_trust import create_private, denial_reason
from cacheapp.errors import StoreUnavailable


def private_directory(path: Path) -> Path:
    """Create the directory, and missing parents, with mode 0700; return its path.

    Raises `StoreUnavailable` if another user could replace it, as `directory_trust` decides: files in
    it may be unpickled.
    """
    try:
        create_private(path)
    except OSError as exc:
        if is_interruption(exc):
            raise
        raise StoreUnavailable(
            f"cannot create the directory {path}: {exc.strerror}{denial(exc, path)}; nothing was done"
        ) from exc
    return path


def denial(error: OSError, path: Path) -> str:
    """Return what a message of this error adds, if another user owns what is at the path."""
    return denial_reason(path) if isinstance(error, PermissionError) else ""


@contextlib.contextmanager
def pinned_directory(path: Path) -> Iterator[Path]:
    """Yield a path that leads to this one directory, even if another one takes its place.

    Raises `StoreUnavailable` if the directory that was opened is not this user's alone, and `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreUnavailable(
                f"{path} belongs to user {found.st_uid} and has mode "
                f"{stat.S_IMODE(found.st_mode):04o}, expected {os.geteuid()} and 0700; nothing was read"
            )
        pinned = Path(f"/proc/self/fd/{descriptor}")
        yield pinned if exists(pinned) else path
    finally:
        os.close(descriptor)
