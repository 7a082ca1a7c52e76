"""Create directories that only this user can change, and refuse those that others can replace."""

from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.directory_trust import create_private
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
            f"cannot create the directory {path}: {exc.strerror}; nothing was done"
        ) from exc
    return path
