"""A private directory of one cache alias, with an exclusive lock across processes.

Processes create, rename and remove files in it only under the lock, after they have read the
directory again. So one process at a time initialises a database, and none sets aside a good one
that another process has just created. The lock is a `flock`: it ends with its process.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.errors import StoreUnavailable

_RETRY_S = 0.002
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_known: list[Path] = []


def resolve_location(location: str | os.PathLike[str]) -> Path:
    """Return the one path by which this process names a LOCATION, however it is reached.

    Two names of one directory (`/var/run` and `/run`, or a bind mount) are one cache, so they must
    not become two stores.
    """
    path = Path(os.path.realpath(location))
    for known in _known:
        with contextlib.suppress(OSError):
            if known == path or known.samefile(path):
                return known
    _known.append(path)
    return path


class SharedDirectory:
    """The directory `LOCATION/<name>`: its permissions and its lock."""

    def __init__(self, location: Path, name: str, timeout_s: float) -> None:
        self.path = location / name
        self._timeout_s = timeout_s
        self._lock_descriptor: int | None = None  # set while this process holds the lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create or check the directory, and hold its lock."""
        self.prepare()
        self._lock_descriptor = self._acquire()
        try:
            yield
        finally:
            self.unlock()

    def unlock(self) -> None:
        """Release the lock. A forked child calls this to drop its copy of the parent's lock."""
        descriptor, self._lock_descriptor = self._lock_descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def prepare(self) -> None:
        """Create the directory, or check that it is still safe to use."""
        private_directory(self.path)

    def _acquire(self) -> int:
        """Return the descriptor of the locked lock file, which is still the one at its path.

        `flock` has no timeout, so this polls.
        """
        deadline = clock.monotonic_s() + self._timeout_s
        path = str(self.path / "lock")
        while True:
            descriptor = os.open(path, _FLAGS, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(descriptor)
                if identity_of(path) == (found.st_dev, found.st_ino):
                    return descriptor
                self.prepare()  # the lock file was removed, so this lock excludes no other process
            except OSError as exc:
                os.close(descriptor)
                if exc.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                    raise
            except BaseException:
                os.close(descriptor)
                raise
            else:
                os.close(descriptor)
            if clock.monotonic_s() > deadline:
                raise StoreUnavailable(
                    f"{path}: another process held the lock for {self._timeout_s:g} s; "
                    "nothing was done"
                )
            time.sleep(_RETRY_S)
