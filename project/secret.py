"""The key of a checkout that runs with DEBUG: made once, kept outside git, one for all workers."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def checkout_key(path: Path) -> str:
    """Return the key in `path`; make it first where there is none.

    Several workers may come here at once. Each writes its own temporary file and links it to
    `path`; `link` succeeds for exactly one of them, and all return what that one wrote.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(64))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another was first: its key counts
                path.hardlink_to(name)
        finally:
            Path(name).unlink()
    return path.read_text().strip()
