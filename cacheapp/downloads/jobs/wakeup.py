"""Wakes the coordinators of all processes on this machine, so that they read the database at once.

The signal is a small file in `STATE_DIR` that changes with each notification. It only saves
time: a coordinator that misses it, or runs on another machine, finds the same at its next regular look.
"""

import contextlib
import os
import secrets
from pathlib import Path

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.errors import CacheappError

_NAME = "downloads.wakeup"


def notify() -> None:
    """Wake the coordinators of all processes on this machine."""
    with contextlib.suppress(OSError, CacheappError):
        path = private_directory(state_dir()) / _NAME
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            # A value never written before: of two writes at once, neither restores an old one.
            os.pwrite(descriptor, secrets.token_bytes(8), 0)
        finally:
            os.close(descriptor)


class Listener:
    """Detects notifications; for use by one thread."""

    def __init__(self) -> None:
        self._path: Path | None = None
        with contextlib.suppress(CacheappError):  # another user's: the regular look is enough
            self._path = private_directory(state_dir()) / _NAME
        self._seen = self._read()

    def was_notified(self) -> bool:
        """Return whether there was a notification since the last call."""
        before, self._seen = self._seen, self._read()
        return self._seen != before

    def _read(self) -> bytes:
        if self._path is None:
            return b""
        try:
            return self._path.read_bytes()
        except OSError:
            return b""
