"""A private directory of one cache alias, with an exclusive lock across processes.

Processes create, rename and remove files in it only under the lock, after they have read the
directory again. So one process at a time initialises a database, and none sets aside a good one
that another process has just created. The lock is a `flock`: it ends with its process.
"""

import errno
import fcntl
import io
import os
import time
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local.interruptions import suppress_failure
from cacheapp.backends.local.paths import real_path
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.directory_trust import replaceable_reason
from cacheapp.errors import StoreUnavailable

_RETRY_S = 0.002
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_known: list[Path] = []


def resolve_location(location: str | os.PathLike[str]) -> Path:
    """Return the one path by which this process names a LOCATION, however it is reached.

    Two names of one directory (`/var/run` and `/run`, or a bind mount) are one cache, so they must
    not become two stores. A directory that another user can exchange is not taken for a known one:
    opening it is refused.
    """
    path = Path(real_path(location))
    for known in _known:
        with suppress_failure(OSError):
            if known == path or (known.samefile(path) and not replaceable_reason(path)):
                return known
    _known.append(path)
    return path


class SharedDirectory:
    """The directory `LOCATION/<name>`: its permissions and its lock."""

    def __init__(self, location: Path, name: str, timeout_s: float) -> None:
        self.path = location / name
        self._timeout_s = timeout_s
        self._lock_file: io.FileIO | None = None  # the last one that this process locked

    def locked(self) -> io.FileIO:
        """Create or check the directory, and acquire its lock: `with directory.locked():`.

        Closing the file releases the lock. The interpreter leaves the block and closes the file in
        one step, so no exception of a signal handler leaves the directory locked.
        """
        self.prepare()
        return self._acquire()

    def unlock(self) -> None:
        """Release the lock. A forked child calls this to drop its copy of the parent's lock."""
        if self._lock_file is not None:
            self._lock_file.close()

    def prepare(self) -> None:
        """Create the directory, or check that it is still safe to use."""
        private_directory(self.path)

    def _acquire(self) -> io.FileIO:
        """Return the locked lock file, which is still the one at its path.

        `flock` has no timeout, so this polls.
        """
        deadline = clock.monotonic_s() + self._timeout_s
        path = str(self.path / "lock")
        while True:
            self._lock_file = file = io.FileIO(path, "r+", opener=_open_lock_file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(file.fileno())
                if identity_of(path) == (found.st_dev, found.st_ino):
                    return file
                self.prepare()  # the lock file was removed, so this lock excludes no other process
            except OSError as exc:
                if exc.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                    file.close()
                    raise
            except BaseException:
                file.close()
                raise
            file.close()
            if clock.monotonic_s() > deadline:
                raise StoreUnavailable(
                    f"{path}: another process held the lock for {self._timeout_s:g} s; "
                    "nothing was done"
                )
            time.sleep(_RETRY_S)


def _open_lock_file(path: str, _flags: int) -> int:
    return os.open(path, _FLAGS, 0o600)
