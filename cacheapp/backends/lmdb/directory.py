"""The directory of one environment: `LOCATION/lmdb/<boot>-<limits>/` with its three files.

Invariants:

- Whoever makes, removes or renames an environment's directory holds the directory's `flock` and has
  looked again at what is there. It appears whole, by a rename.
- Every byte that a process writes through a memory map has its block on the disk before: all three
  files are reserved, and LMDB writes to the data file's map only where a block that was reserved is
  the one that is written; elsewhere with `pwrite`. So a full disk is an error, never a SIGBUS. No
  file is ever cut short in place.
- At most one environment is at the place: of this boot, with one pair of limits. An environment of
  another boot may have lost what the kernel had not yet written: it is removed, never opened.
- Before an environment is removed or set aside it is *retired*: a byte in its marks tells every
  process that has it open, at its next operation, to look at the place again.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.limits import READERS, SizeLimits
from cacheapp.backends.lmdb.reference_bits import file_bytes, retire
from cacheapp.backends.local.boot import boot_id
from cacheapp.backends.local.directory import LOCKS, DatabaseDirectory
from cacheapp.backends.local.filesystem import filesystem_type
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

FORMAT = "v1"
NAME = "lmdb"
DATABASES = (b"entries", b"queue", b"deadlines", b"meta")
_MAKING = "making-"
_SET_ASIDE = "damaged-"
# Others (btrfs, zfs, f2fs) write each page to a new place, or may: xfs once a copy shares the block
# (`cp` makes such copies), and what is below an overlay.
_WRITTEN_IN_PLACE = frozenset(["ext2", "ext3", "ext4", "tmpfs"])


class EnvironmentDirectory(DatabaseDirectory):
    """Where the environment of one LOCATION is."""

    def __init__(self, location: Path, limits: SizeLimits, timeout_s: float) -> None:
        super().__init__(location, NAME, 1, timeout_s)
        self._limits = limits
        self._settled = False

    def whole(self) -> tuple[Path, SizeLimits] | None:
        """Return the environment that is there and may be used as it is; no lock is needed.

        It appeared whole; and should it go meanwhile, then it was retired before.
        """
        try:
            found = self._found()
        except OSError:
            return None
        if found is None or not (self._settled or found[1] == self._limits):
            return None
        self.prepare()
        self._settled = True
        return found

    def environment(self) -> tuple[Path, SizeLimits]:
        """Return the directory of the environment and its limits; under the lock. Make it if need be.

        A process that comes with other limits replaces what it finds. One that had made or found
        an environment with its own limits before is the older of two, and takes what is there.
        """
        found = self._found()
        if found is not None and (self._settled or found[1] == self._limits):
            self._settled = True
            return found
        path = self.path / f"{boot_id()}-{FORMAT}-{self._limits.name}"
        self.remove_all()
        self._make(path)
        self._settled = True
        return path, self._limits

    def _found(self) -> tuple[Path, SizeLimits] | None:
        start = f"{boot_id()}-{FORMAT}-"
        for entry in self.path.iterdir():
            if entry.name.startswith(start):
                size, _, entries = entry.name[len(start) :].partition("-")
                limits = SizeLimits(int(size), int(entries) or None)
                if _is_whole(entry, limits):
                    return entry, limits
        return None

    def _make(self, path: Path) -> None:
        limits = self._limits
        making = self.path / f"{_MAKING}{os.getpid()}"
        making.mkdir(mode=0o700)
        try:
            _reserve(making / "lock.mdb", limits.lock_bytes)
            _reserve(making / "marks", file_bytes(limits.slots))
            made = open_environment(making, limits, writemap=False)  # no block is reserved yet
            for name in DATABASES:
                made.open_db(name)
            made.close()
            _reserve(making / "data.mdb", limits.map_bytes)
        except OSError as exc:
            shutil.rmtree(making, ignore_errors=True)
            free = shutil.disk_usage(self.path).free
            raise StoreUnavailable(
                f"{self.path} cannot hold a cache of {limits.size_limit} bytes ({exc.strerror}; "
                f"{free} are free): make room, or set OPTIONS['size_limit'] lower; nothing was done"
            ) from exc
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        making.rename(path)

    def remove_all(self) -> None:
        """Remove every environment, whole or not, and what an interrupted one left; under the lock."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.name.startswith((_SET_ASIDE, LOCKS)):
                retire(entry / "marks")
                shutil.rmtree(entry, ignore_errors=True)

    def set_environment_aside(self, path: Path, why: str) -> None:
        """Rename a damaged environment, so that all processes meet in a new one; under the lock.

        Only the newest damaged one is kept.
        """
        retire(path / "marks")
        for older in self.path.glob(f"{_SET_ASIDE}*"):
            shutil.rmtree(older, ignore_errors=True)
        aside = self.path / f"{_SET_ASIDE}{clock.wall_s():.0f}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
        logger.warning(
            "damaged cache database (%s): set aside as %s; the cache starts empty",
            why,
            aside,
            extra={"event": "cache_database_set_aside"},
        )


def overwrites_in_place(path: Path) -> bool:
    """Return whether a store to a map of a file in this directory needs no new block."""
    return filesystem_type(path) in _WRITTEN_IN_PLACE


def open_environment(path: Path, limits: SizeLimits, *, writemap: bool) -> lmdb.Environment:
    """Open the environment in a directory that exists.

    `writemap`: write by storing to the map, which takes a fifth of what system calls take. The
    processes need not agree about it, as nobody relies on the order in which pages reach the disk.
    """
    return lmdb.Environment(
        str(path),
        map_size=limits.map_bytes,
        create=False,
        mode=0o600,
        sync=False,  # what a crash of the machine leaves is not opened again
        metasync=False,
        readahead=False,
        writemap=writemap,
        max_readers=READERS,
        max_dbs=len(DATABASES),
        max_spare_txns=1,
    )


def _is_whole(path: Path, limits: SizeLimits) -> bool:
    """Return whether the files are there and as long as their maps: a shorter one means SIGBUS."""
    wanted = {
        "data.mdb": limits.map_bytes,
        "lock.mdb": limits.lock_bytes,
        "marks": file_bytes(limits.slots),
    }
    try:
        return all((path / name).stat().st_size >= size for name, size in wanted.items())
    except OSError:
        return False


def _reserve(path: Path, size: int) -> None:
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(number, 0, size)
    finally:
        os.close(number)
