"""Create the SECRET_KEY of a checkout with DEBUG: once, outside git, one key for all workers."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def checkout_key(path: Path) -> str:
    """Return the key in `path`; create it if the file is missing.

    Several workers may call this concurrently. Each writes a temporary file and links it to `path`;
    `link` succeeds for exactly one of them, and all return its key.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
