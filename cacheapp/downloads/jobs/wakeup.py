"""A bell that all workers of the host hear within a moment: look at the database now, not later.

A small file in `STATE_DIR` whose contents change with each ring. It only saves time: who misses a
ring, or runs on another host, finds the same in the database at its next look.
"""

import contextlib
import os
import secrets

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.errors import CacheappError

_NAME = "downloads.wakeup"


def notify() -> None:
    """Have all coordinators of this host look."""
    with contextlib.suppress(OSError, CacheappError):
        path = private_directory(state_dir()) / _NAME
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            # Unlike all before it: of two rings at once, neither undoes the other.
            os.pwrite(descriptor, secrets.token_bytes(8), 0)
        finally:
            os.close(descriptor)


class Listener:
    """Hears the bell; for one thread."""

    def __init__(self) -> None:
        self._path = state_dir() / _NAME
        self._seen = self._read()

    def was_notified(self) -> bool:
        """Return whether the bell rang since the last call."""
        before, self._seen = self._seen, self._read()
        return self._seen != before

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""
