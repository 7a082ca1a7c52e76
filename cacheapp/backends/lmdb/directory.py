"""Where the environment of one LOCATION is: three files in `LOCATION/lmdb/<boot>-<format>-<limits>/`.

Invariants:

- A process creates, removes or renames an environment's directory only under the lock, after
  reading the parent directory again. The directory appears complete, by a rename.
- A process writes through a memory map only where a disk block is allocated: the space of all
  three files is preallocated, and LMDB stores to the data file's map only on filesystems that
  overwrite a block in place; elsewhere it uses `pwrite`. So a full disk is an error, never a
  SIGBUS. No file is ever truncated in place.
- There is at most one environment: of this boot, with one pair of limits. One of another boot may
  lack pages that the kernel had not yet written; it is removed, never opened.
- Before an environment is removed or set aside it is *retired*: a byte in its file of reference
  bits makes every process that has it open check the directory at its next operation.
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
from cacheapp.backends.local.database_directory import LOCKS
from cacheapp.backends.local.filesystem import filesystem_type
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.shared_directory import SharedDirectory
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

FORMAT = "v1"
NAME = "lmdb"
DATA_FILE, LOCK_FILE, BITS_FILE = "data.mdb", "lock.mdb", "reference-bits"
DATABASES = (b"entries", b"queue", b"deadlines", b"meta")
_TEMPORARY = "making-"
_SET_ASIDE = "damaged-"
# Others (btrfs, zfs, f2fs) write each page to a new block, or may do so: xfs once a copy shares the
# block (`cp` makes such copies), and the filesystem below an overlay.
_OVERWRITES_IN_PLACE = frozenset(["ext2", "ext3", "ext4", "tmpfs"])


class EnvironmentDirectory(SharedDirectory):
    """The directory that contains the environment of one LOCATION."""

    def __init__(self, location: Path, limits: SizeLimits, timeout_s: float) -> None:
        super().__init__(location, NAME, timeout_s)
        self._limits = limits
        self._settled = False  # True once this process has used an environment here

    def find_usable(self) -> tuple[Path, SizeLimits] | None:
        """Return the environment that can be used as it is; needs no lock.

        It appeared complete; and it is retired before it is removed.
        """
        try:
            found = self._find()
        except OSError:
            return None
        if found is None or not (self._settled or found[1] == self._limits):
            return None
        self.prepare()
        self._settled = True
        return found

    def find_or_create(self) -> tuple[Path, SizeLimits]:
        """Return the path and limits of the environment; call it under the lock.

        A process that starts with other limits replaces an existing environment. A process that
        has used one with its own limits before is the older of the two, and adopts the new one.
        """
        found = self._find()
        if found is not None and (self._settled or found[1] == self._limits):
            self._settled = True
            return found
        path = self.path / f"{boot_id()}-{FORMAT}-{self._limits.name}"
        self.remove_all()
        self._create(path)
        self._settled = True
        return path, self._limits

    def _find(self) -> tuple[Path, SizeLimits] | None:
        start = f"{boot_id()}-{FORMAT}-"
        for entry in self.path.iterdir():
            if entry.name.startswith(start):
                size, _, entries = entry.name[len(start) :].partition("-")
                limits = SizeLimits(int(size), int(entries) or None)
                if _is_complete(entry, limits):
                    return entry, limits
        return None

    def _create(self, path: Path) -> None:
        limits = self._limits
        temporary = self.path / f"{_TEMPORARY}{os.getpid()}"
        temporary.mkdir(mode=0o700)
        try:
            _preallocate(temporary / LOCK_FILE, limits.lock_bytes)
            _preallocate(temporary / BITS_FILE, file_bytes(limits.reference_bits))
            # Without a map, as the data file's blocks are not yet allocated.
            created = open_environment(temporary, limits, writemap=False)
            for name in DATABASES:
                created.open_db(name)
            created.close()
            _preallocate(temporary / DATA_FILE, limits.map_bytes)
        except OSError as exc:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_interruption(exc):
                raise
            free = shutil.disk_usage(self.path).free
            raise StoreUnavailable(
                f"{self.path} cannot hold a cache of {limits.size_limit} bytes ({exc.strerror}; "
                f"{free} bytes are free): free some disk space, or lower OPTIONS['size_limit']; "
                "nothing was done"
            ) from exc
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        temporary.rename(path)

    def remove_all(self) -> None:
        """Remove every environment, and what an interrupted creation left; call it under the lock."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.name.startswith((_SET_ASIDE, LOCKS)):
                retire(entry / BITS_FILE)
                shutil.rmtree(entry, ignore_errors=True)

    def set_aside(self, path: Path, why: str) -> None:
        """Rename a damaged environment, so that all processes use a new one; call it under the lock.

        Only the newest damaged one is kept.
        """
        retire(path / BITS_FILE)
        for older in self.path.glob(f"{_SET_ASIDE}*"):
            shutil.rmtree(older, ignore_errors=True)
        aside = self.path / f"{_SET_ASIDE}{clock.wall_s():.0f}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
        logger.warning(
            "damaged cache database (%s): moved to %s; the cache starts empty",
            why,
            aside,
            extra={"event": "cache_database_set_aside"},
        )


def overwrites_in_place(path: Path) -> bool:
    """Return True if a store to the map of a preallocated file here never needs a new block."""
    return filesystem_type(path) in _OVERWRITES_IN_PLACE


def open_environment(path: Path, limits: SizeLimits, *, writemap: bool) -> lmdb.Environment:
    """Open the environment in an existing directory.

    `writemap`: write by stores to the map, which takes a fifth of the time of system calls. Processes
    may differ in this, as none relies on the order in which pages reach the disk.
    """
    return lmdb.Environment(
        str(path),
        map_size=limits.map_bytes,
        create=False,
        mode=0o600,
        sync=False,  # an environment is not opened again after a crash of the machine
        metasync=False,
        readahead=False,
        writemap=writemap,
        max_readers=READERS,
        max_dbs=len(DATABASES),
        max_spare_txns=1,
    )


def _is_complete(path: Path, limits: SizeLimits) -> bool:
    """Return True if all files are as long as their maps; access to a shorter one is a SIGBUS."""
    expected = {
        DATA_FILE: limits.map_bytes,
        LOCK_FILE: limits.lock_bytes,
        BITS_FILE: file_bytes(limits.reference_bits),
    }
    try:
        return all((path / name).stat().st_size >= size for name, size in expected.items())
    except OSError:
        return False


def _preallocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
