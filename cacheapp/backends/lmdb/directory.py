"""Where the environment of one LOCATION is: three files in `LOCATION/lmdb/<boot>-<format>-<limits>/`.

Invariants:

- A process creates, removes or renames an environment's directory only under the lock, after
  reading the parent directory again. The directory appears complete, by a rename.
- A process writes through a memory map only where a disk block is allocated: the space of all
  three files is preallocated, and LMDB stores to the data file's map only on filesystems that
  overwrite a block in place; elsewhere it uses `pwrite`. So a full disk is an error, never a
  SIGBUS. No file is ever truncated in place.
- There is at most one environment: of this boot, with one pair of limits. One of another boot may
  lack pages that the kernel had not yet written; it is removed, never opened. It has no living user:
  a process changes the directory only while it has a claim, see `pid_namespace`.
- No environment that can be used is removed before the one that replaces it is complete, unless no
  other process has it open. A larger one takes over its files, see `growth`.
- Before an environment is removed or set aside it is *retired*: a byte in its file of reference
  bits makes every process that has it open check the directory at its next operation. A retired one
  is not opened; what remains of it after a kill is removed.
"""

import dataclasses
import errno
import logging
import os
import shutil
from pathlib import Path

import lmdb

from cacheapp import clock
from cacheapp.backends.lmdb.growth import (
    BITS_FILE,
    DATA_FILE,
    LOCK_FILE,
    added_bytes,
    can_move,
    move_files,
    moving,
)
from cacheapp.backends.lmdb.limits import MIN_SIZE_LIMIT, READERS, SizeLimits
from cacheapp.backends.lmdb.reference_bits import file_bytes, is_retired, retire
from cacheapp.backends.local.boot import boot_id
from cacheapp.backends.local.database_directory import LOCKS
from cacheapp.backends.local.filesystem import filesystem_type
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.memory_limit import memory_available
from cacheapp.backends.local.paths import entries, exists, is_directory, remove
from cacheapp.backends.local.pid_namespace import Claim, remove_stale_claims
from cacheapp.backends.local.reservation import preallocate
from cacheapp.backends.local.shared_directory import SharedDirectory
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_IN_MEMORY = frozenset(["tmpfs", "ramfs"])
# LMDB reports a write that the disk took in part as EIO.
_FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
FORMAT = "v1"
# Releases of different formats may run side by side: in one directory, each would remove the other's.
NAME = "lmdb" if FORMAT == "v1" else f"lmdb-{FORMAT}"
DATABASES = (b"entries", b"queue", b"deadlines", b"meta")
_TEMPORARY = "making-"
_SET_ASIDE = "damaged-"
# Others (btrfs, zfs, f2fs) write each page to a new block, or may do so: xfs once a copy shares the
# block (`cp` makes such copies), and the filesystem below an overlay.
_OVERWRITES_IN_PLACE = frozenset(["ext2", "ext3", "ext4", "tmpfs"])


class _NoSpace(Exception):
    """The files of an environment do not fit; the message names what is there."""


@dataclasses.dataclass(frozen=True)
class _Found:
    """An environment in the directory. `requested` differs from `limits` if those did not fit."""

    path: Path
    limits: SizeLimits
    requested: SizeLimits


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
        except FileNotFoundError as exc:
            if is_interruption(exc):
                raise
            return None
        if found is None or not self._accepts(found):
            return None
        self._settled = True
        return found.path, found.limits

    def find_or_create(self, claim: Claim) -> tuple[Path, SizeLimits]:
        """Return the path and limits of the environment; call it under the lock.

        A process that starts with other limits replaces an existing environment. A process that
        has used one with its own limits before is the older of the two, and adopts the new one.

        A larger environment has the entries of the old one, unless another process needs more than a
        second to open that. A smaller one is new: it is complete before the old one is removed. Where
        both do not fit, the old one makes room if no other process has it open; otherwise it stays in
        use, until no other process has it open. Raises `StoreUnavailable` where the new one never fits.
        """
        self._remove_stale()
        found = self._find()
        if found is None or not self._accepts(found):
            found = self._replaced(found, claim)
        self._settled = True
        return found.path, found.limits

    def _accepts(self, found: _Found) -> bool:
        return self._settled or found.limits == self._limits

    def _replaced(self, old: _Found | None, claim: Claim) -> _Found:
        """Return an environment of our limits in the place of the old one, or the old one."""
        if old is not None:
            if (grown := self._grown(old)) is not None:
                return grown
            if old.requested == self._limits:
                return old  # there is still no room for more
        try:
            return self._install(self._limits)
        except _NoSpace as exc:
            fits_alone = old is not None and self._limits.total_bytes <= (
                old.limits.total_bytes + _room(self.path)
            )
            if old is None or not fits_alone:
                raise StoreUnavailable(
                    f"{self.path} cannot hold a cache of {self._limits.size_limit} bytes ({exc}): "
                    "free some space, or lower OPTIONS['size_limit']; nothing was done"
                ) from exc
            if claim.is_open_elsewhere():
                logger.warning(
                    "%s: a cache of %d bytes does not fit beside the one of %d bytes that other "
                    "processes use (%s); it stays in use until they have ended",
                    self.path,
                    self._limits.size_limit,
                    old.limits.size_limit,
                    exc,
                    extra={"event": "cache_resize_deferred"},
                )
                return old
        self.remove_all()
        return self._replaced(None, claim)

    def replace_all(self) -> None:
        """Replace the environment by an empty one, smaller if need be; call it under the lock.

        Processes that have the old one open keep its blocks until their next operation, and a
        stopped one for as long as it lives.
        """
        limits = self._limits
        while limits.size_limit >= MIN_SIZE_LIMIT:
            try:
                self._install(limits)
            except _NoSpace:
                limits = dataclasses.replace(limits, size_limit=limits.size_limit // 2)
            else:
                if limits != self._limits:
                    logger.warning(
                        "%s: %d bytes are not free; the cache has %d bytes until processes start "
                        "that find room",
                        self.path,
                        self._limits.size_limit,
                        limits.size_limit,
                        extra={"event": "cache_reduced"},
                    )
                return
        self.remove_all()

    def _find(self) -> _Found | None:
        start = f"{boot_id()}-{FORMAT}-"
        for entry in self.path.iterdir():
            if entry.name.startswith(start):
                size, entries, *requested = entry.name[len(start) :].split("-")
                limits = dataclasses.replace(
                    self._limits, size_limit=int(size), max_entries=int(entries) or None
                )
                if _is_usable(entry, limits):
                    wanted = int(requested[0]) if requested else limits.size_limit
                    return _Found(entry, limits, dataclasses.replace(limits, size_limit=wanted))
        return None

    def _grown(self, old: _Found) -> _Found | None:
        """Return the old environment with our limits; `None` if its files cannot become so large.

        If this process is killed in between, there is the old environment, the new one, or none.
        """
        added = added_bytes(old.limits, self._limits)
        if not can_move(old.limits, self._limits) or added > _room(self.path):
            return None
        path = self.path / f"{boot_id()}-{FORMAT}-{self._limits.name}"
        temporary = self._new_temporary()
        try:
            with moving(old.path):
                move_files(old.path, temporary, old.limits, self._limits)
                retire(old.path / BITS_FILE)
                gone = old.path.rename(self.path / f"{_TEMPORARY}{os.getpid()}-old")
                temporary.rename(path)
                _remove(gone)
        except OSError as exc:  # a full disk, one without links, or a slow opener
            if is_interruption(exc):
                raise
            return None
        finally:
            remove(temporary)
        return _Found(path, self._limits, self._limits)

    def _new_temporary(self) -> Path:
        """Create an empty directory, after the removal of what a killed process left."""
        for stale in entries(self.path, _TEMPORARY):  # perhaps of a process that had our pid
            _remove(stale)
        temporary = self.path / f"{_TEMPORARY}{os.getpid()}"
        temporary.mkdir(mode=0o700)
        return temporary

    def _install(self, limits: SizeLimits) -> _Found:
        """Create an environment, and put it in the place of all others; raise `_NoSpace`."""
        reduced = "" if limits == self._limits else f"-{self._limits.size_limit}"
        path = self.path / f"{boot_id()}-{FORMAT}-{limits.name}{reduced}"
        created = self._create(limits)
        if exists(path):  # retired, so that no process uses it after its next look
            retire(path / BITS_FILE)
            path.rename(self.path / f"{_TEMPORARY}{os.getpid()}-old")
        for entry in self._environments():
            if entry != created:
                _remove(entry)
        created.rename(path)
        return _Found(path, limits, self._limits)

    def _create(self, limits: SizeLimits) -> Path:
        """Return a complete environment under a temporary name."""
        _check_space(self.path, limits)
        temporary = self._new_temporary()
        try:
            preallocate(temporary / LOCK_FILE, limits.lock_bytes)
            preallocate(
                temporary / BITS_FILE, file_bytes(limits.reference_bits, limits.change_counters)
            )
            # Without a map, as the data file's blocks are not yet allocated.
            with open_environment(temporary, limits, writemap=False) as created:
                for name in DATABASES:
                    created.open_db(name)
            preallocate(temporary / DATA_FILE, limits.map_bytes)
        except (OSError, lmdb.Error) as exc:
            remove(temporary)
            if is_interruption(exc):
                raise
            if (exc.code if isinstance(exc, lmdb.Error) else exc.errno) in _FULL:
                raise _NoSpace(f"{exc}; {_free_bytes(self.path)} bytes are free") from exc
            raise
        except BaseException:
            remove(temporary)
            raise
        return temporary

    def _environments(self) -> list[Path]:
        """Return the directories of environments, complete or not."""
        return [
            entry
            for entry in self.path.iterdir()
            if is_directory(entry) and not entry.name.startswith((_SET_ASIDE, LOCKS))
        ]

    def _remove_stale(self) -> None:
        """Remove what no process can use; call it under the lock.

        That is what an interrupted creation or removal left, and the environments of other boots: as
        long as a process of another boot id lives, this one has no claim.
        """
        for entry in self._environments():
            if not entry.name.startswith(f"{boot_id()}-{FORMAT}-") or _was_retired(entry):
                _remove(entry)
        remove_stale_claims(self.path)

    def remove_all(self) -> None:
        """Remove every environment, and what an interrupted creation left; call it under the lock."""
        for entry in self._environments():
            _remove(entry)

    def set_aside(self, path: Path, why: str) -> None:
        """Rename a damaged environment, so that all processes use a new one; call it under the lock.

        Only the newest damaged one is kept.
        """
        retire(path / BITS_FILE)
        for older in entries(self.path, _SET_ASIDE):
            remove(older)
        aside = self.path / f"{_SET_ASIDE}{clock.wall_s():.0f}"
        with suppress_failure(FileNotFoundError):
            path.rename(aside)
        logger.warning(
            "damaged cache database (%s): moved to %s; the cache starts empty",
            why,
            aside,
            extra={"event": "cache_database_set_aside"},
        )


def _remove(environment: Path) -> None:
    retire(environment / BITS_FILE)
    remove(environment)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def _room(path: Path) -> int:
    """Return the bytes that files here may take: of the disk, and of memory where they are there."""
    free = _free_bytes(path)
    if filesystem_type(path) in _IN_MEMORY and (available := memory_available()) is not None:
        return min(free, available)
    return free


def _check_space(path: Path, limits: SizeLimits) -> None:
    """Raise `_NoSpace` before a block is allocated: other files need what is free, too."""
    needed, free = limits.total_bytes, _free_bytes(path)
    if needed > free:
        raise _NoSpace(f"{needed} bytes are needed, {free} are free")
    if filesystem_type(path) in _IN_MEMORY:
        available = memory_available()
        if available is not None and needed > available:
            raise _NoSpace(
                f"{needed} bytes of memory are needed, the limit of this process's cgroup leaves "
                f"{available}"
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


def _is_usable(path: Path, limits: SizeLimits) -> bool:
    """Return True if it is in use, and all files are as long as their maps: else a SIGBUS follows."""
    expected = {
        DATA_FILE: limits.map_bytes,
        LOCK_FILE: limits.lock_bytes,
        BITS_FILE: file_bytes(limits.reference_bits, limits.change_counters),
    }
    try:
        return all(
            (path / name).stat().st_size >= size for name, size in expected.items()
        ) and not is_retired(path / BITS_FILE)
    except OSError as exc:
        if is_interruption(exc):
            raise
        return False


def _was_retired(path: Path) -> bool:
    with suppress_failure(OSError):  # incomplete, and not used either
        return is_retired(path / BITS_FILE)
    return False
