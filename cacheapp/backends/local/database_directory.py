"""Where the SQLite databases of one alias are: `LOCATION/<alias>/<shards>x<number>/cache.db`.

The path of a shard is a symbolic link to its *current directory*, which has a random name that is
never reused. The reason: SQLite opens `-wal` and `-shm` by path, when it first needs them. If a
removed database and a new one could have the same path, a process might put the WAL of the new one
beside its old database; two processes that map one `-shm` for different databases die of SIGBUS.

Functions that create, rename or remove a shard are called under the directory's lock.
"""

import errno
import logging
import os
import re
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local.interruptions import suppress_failure
from cacheapp.backends.local.paths import entries, exists, is_directory, remove
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.shared_directory import SharedDirectory

logger = logging.getLogger(__name__)

LOCKS = "locks"
_SHARD = re.compile(r"(\d+)x\d{3,}(-.*)?")
_RANDOM_SUFFIX = re.compile(r"-[0-9a-f]{16}")
_SET_ASIDE = "damaged-"


class DatabaseDirectory(SharedDirectory):
    """The paths of an alias's shards, and how they are created, removed and set aside."""

    database_name = "cache.db"  # as diskcache names it

    def __init__(self, location: Path, name: str, shards: int, timeout_s: float) -> None:
        super().__init__(location, name, timeout_s)
        self._shards = shards

    def shard(self, number: int) -> Path:
        """Return the link to a shard's current directory.

        Its name contains the number of shards: with another number, keys belong to other shards,
        and the entries of the old layout must never be found again.
        """
        return self.path / f"{self._shards}x{number:03d}"

    def database(self, number: int) -> str:
        """Return the path at which all processes find a shard's database."""
        return str(self.shard(number) / self.database_name)

    def current(self, number: int) -> Path:
        """Return a shard's current directory; raise `OSError` if there is none."""
        link = self.shard(number)
        name = os.readlink(link)
        if not (name.startswith(link.name) and _RANDOM_SUFFIX.fullmatch(name, len(link.name))):
            raise FileNotFoundError(errno.ENOENT, "leads elsewhere", str(link))
        return self.path / name

    def make_shard(self, number: int) -> None:
        """Create a directory with an empty database for a shard, unless it has one.

        SQLite gives `-wal` and `-shm` the mode of the database. An existing database is not opened
        here: closing it would drop all locks that SQLite holds on it for this process.
        """
        self._remove_other_layouts()
        link = self.shard(number)
        with suppress_failure(OSError):
            found = private_directory(self.current(number))
            if exists(found / self.database_name):
                return
        fresh = private_directory(self.path / f"{link.name}-{os.urandom(8).hex()}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(fresh / self.database_name, flags, 0o600))
        if is_directory(link):
            remove(link)
        new = fresh.with_suffix(".new")
        new.symlink_to(fresh.name)
        new.replace(link)
        for other in entries(self.path, f"{link.name}-"):
            if other != fresh:
                remove(other)

    def _remove_other_layouts(self) -> None:
        for entry in self.path.iterdir():
            found = _SHARD.fullmatch(entry.name)
            if found and int(found[1]) != self._shards:
                remove(entry)

    def remove(self, number: int) -> None:
        """Remove a shard. For processes that look at its path, it disappears in one step."""
        current = self.current(number)
        self.shard(number).unlink()
        remove(current)

    def set_aside(self, number: int, why: str) -> None:
        """Move a damaged shard away in one step; only the newest damaged one is kept.

        Open connections to it stay valid. Their threads find that the path leads elsewhere.
        """
        link, current = self.shard(number), self.current(number)
        for older in entries(self.path, f"{_SET_ASIDE}{link.name}-"):
            remove(older)
        link.unlink()
        aside = self.path / f"{_SET_ASIDE}{link.name}-{clock.wall_s():.0f}"
        current.rename(aside)
        for folder in aside.iterdir():
            if is_directory(folder):  # value files are of no use without their rows
                remove(folder)
        logger.warning(
            "damaged cache database (%s): moved to %s; this part of the cache starts empty",
            why,
            aside,
            extra={"event": "cache_database_set_aside"},
        )


class LockTableDirectory(DatabaseDirectory):
    """Where the database of an alias's locks is: beside the shards, as their number may change."""

    database_name = "locks.db"

    def shard(self, number: int) -> Path:
        """Return the link to the directory of the locks."""
        del number
        return self.path / LOCKS

    def _remove_other_layouts(self) -> None:
        """Leave the shards alone."""
