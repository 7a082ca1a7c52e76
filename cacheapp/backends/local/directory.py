"""The directory of one alias: `LOCATION/<alias>/<shards>x<number>/cache.db` and its value files.

A shard's name is a link to its *current directory*, whose random name is never used twice. For
SQLite finds `-wal` and `-shm` by path, when it first needs them: if a removed and a new database
could have the same path, a process might put the new one's WAL beside its old database, and two
that map one `-shm` by different databases end with SIGBUS.

`locked` holds an exclusive `flock` across processes. Whatever makes, renames or removes a shard
does so under it, after looking again at what is there: so a database is initialised by one
process at a time, and nobody sets aside the good one that another has just put in place. The lock
goes with its process, however that ends.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from diskcache.core import DBNAME

from cacheapp import clock
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import identity_of
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"(\d+)x\d{3,}(-.*)?")
_RANDOM = re.compile(r"-[0-9a-f]{16}")
_SET_ASIDE = "damaged-"
LOCKS = "locks"


def location_problem(directory: Path) -> str | None:
    """Return why no alias's directory may be kept in an existing one (the LOCATION), or `None`.

    Whoever can write to it can put another directory in the place of ours.
    """
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is not a directory"
    user = os.geteuid()
    if found.st_uid not in {user, 0}:
        return f"{directory} belongs to user {found.st_uid}, expected {user} or root"
    if found.st_mode & stat.S_IWOTH:
        return (
            f"{directory} is world-writable (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod o-w {directory}"
        )
    return None


class DatabaseDirectory:
    """Paths, permissions and the lock of one alias's directory."""

    database_name = DBNAME

    def __init__(self, location: Path, name: str, shards: int, timeout_s: float) -> None:
        self.path = location / name
        self._location = location
        self._shards = shards
        self._timeout_s = timeout_s
        self._lock_number: int | None = None  # the lock's descriptor, while this process holds it

    def shard(self, number: int) -> Path:
        """Return the link to a shard's current directory.

        Its name tells how many there are: with another number of shards, keys are elsewhere, and
        what is left here must never be found again.
        """
        return self.path / f"{self._shards}x{number:03d}"

    def database(self, number: int) -> str:
        """Return the path by which all processes find a shard's database."""
        return str(self.shard(number) / self.database_name)

    def current(self, number: int) -> Path:
        """Return the directory in which a shard is now; `OSError` where there is none."""
        link = self.shard(number)
        name = os.readlink(link)
        if not (name.startswith(link.name) and _RANDOM.fullmatch(name, len(link.name))):
            raise FileNotFoundError(errno.ENOENT, "leads elsewhere", str(link))
        return self.path / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory's lock, which makes the directory first, or look at it again."""
        self.prepare()
        self._lock_number = self._locked_file()
        try:
            yield
        finally:
            self.unlock()

    def unlock(self) -> None:
        """Give up the lock; in a forked child: the parent's, which it would share."""
        number, self._lock_number = self._lock_number, None
        if number is not None:
            os.close(number)

    def prepare(self) -> None:
        """Make the directory, or look whether it may still be used."""
        if not self._location.exists():
            private_directory(self._location)
        if reason := location_problem(self._location):
            raise StoreUnavailable(f"cache directory refused: {reason}; nothing was done")
        private_directory(self.path)

    def _locked_file(self) -> int:
        """Return the descriptor of the lock file, locked, after making sure that it still counts.

        The system's own wait has no end, so this one asks again and again.
        """
        deadline = clock.monotonic_s() + self._timeout_s
        path = str(self.path / "lock")
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(number)
                if identity_of(path) == (found.st_dev, found.st_ino):
                    return number
                self.prepare()  # removed meanwhile: this lock is nobody else's
            except OSError as exc:
                os.close(number)
                if exc.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                    raise
            except BaseException:
                os.close(number)
                raise
            else:
                os.close(number)
            if clock.monotonic_s() > deadline:
                raise StoreUnavailable(
                    f"{path}: another process held the lock for {self._timeout_s:g} s; "
                    "nothing was done"
                )
            time.sleep(0.002)

    # -- under the lock ----------------------------------------------------------------------

    def make_shard(self, number: int) -> None:
        """Make a directory with an empty database for a shard, unless it has one.

        SQLite gives `-wal` and `-shm` the mode of the database. Never open a database that
        exists: closing it again would drop the locks that SQLite holds on it for this process.
        """
        self._remove_other_layouts()
        link = self.shard(number)
        with contextlib.suppress(OSError):
            found = private_directory(self.current(number))
            if (found / self.database_name).exists():
                return
        fresh = private_directory(self.path / f"{link.name}-{os.urandom(8).hex()}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(fresh / self.database_name, flags, 0o600))
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        new = fresh.with_suffix(".new")
        new.symlink_to(fresh.name)
        new.replace(link)
        for other in self.path.glob(f"{link.name}-*"):
            if other != fresh:
                _remove(other)

    def _remove_other_layouts(self) -> None:
        for entry in self.path.iterdir():
            found = _SHARD.fullmatch(entry.name)
            if found and int(found[1]) != self._shards:
                _remove(entry)

    def remove(self, number: int) -> None:
        """Remove a shard, in one step for whoever looks at the path."""
        current = self.current(number)
        self.shard(number).unlink()
        shutil.rmtree(current, ignore_errors=True)

    def set_aside(self, number: int, why: str) -> None:
        """Take a damaged shard away, in one step for whoever looks at the path; keep the newest.

        Connections to it stay valid, and their owners see that the path leads elsewhere.
        """
        link, current = self.shard(number), self.current(number)
        for older in self.path.glob(f"{_SET_ASIDE}{link.name}-*"):
            shutil.rmtree(older, ignore_errors=True)
        link.unlink()
        aside = self.path / f"{_SET_ASIDE}{link.name}-{clock.wall_s():.0f}"
        current.rename(aside)
        for folder in aside.iterdir():
            if folder.is_dir():  # value files are of no use without their rows
                shutil.rmtree(folder, ignore_errors=True)
        logger.warning(
            "damaged cache database (%s): set aside as %s; this part of the cache starts empty",
            why,
            aside,
            extra={"event": "cache_database_set_aside"},
        )


def _remove(entry: Path) -> None:
    if entry.is_symlink():
        entry.unlink(missing_ok=True)
    else:
        shutil.rmtree(entry, ignore_errors=True)


class LockTableDirectory(DatabaseDirectory):
    """Where the database of an alias's locks is: beside the shards, whose number may change."""

    database_name = "locks.db"

    def shard(self, number: int) -> Path:
        """Return the link to the directory of the locks."""
        del number
        return self.path / LOCKS

    def _remove_other_layouts(self) -> None:
        """Leave the shards alone."""
