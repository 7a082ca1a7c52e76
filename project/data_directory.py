"""The files of `DATA_DIR` that the settings need, private to the user who runs the project."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def checkout_key(path: Path) -> str:
    """Return the key in `path`, outside git and the same for all workers; create it if missing.

    Several workers may call this concurrently. Each writes a temporary file and links it to `path`;
    `link` succeeds for exactly one of them, and all return its key.
    """
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(64))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another worker was first; its key is used
                path.hardlink_to(name)
        finally:
            Path(name).unlink()
    return path.read_text().strip()


def private_database(path: Path) -> Path:
    """Create an empty SQLite database with mode 0600, or give an older one this mode; return its path.

    SQLite would create it for all users to read, and gives its `-wal` and `-shm` the same mode.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        # Not opened: closing a database file drops the locks that SQLite holds on it.
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
    return path
