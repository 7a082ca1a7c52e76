"""A file with one slot per process. The kernel knows whether the holder of a slot is alive.

Invariant: at most one process holds a slot, and no dead one does. A slot is held by a POSIX lock on
its byte, which the kernel releases however the process ends. Properties of these locks (fcntl(2))
shape this module:

- Closing *any* descriptor of the file drops all locks of the process. So a process opens a file
  once (`open_slot_file`), and closes it only when it has no link left.
- A forked child inherits no locks, and drops none of its parent's by closing the file. A living
  child does not keep the locks of its dead parent either.
- They never conflict within a process. So a process must remember its own slot.

Code that becomes a daemon closes all descriptors, and then their numbers belong to files of others.
So the descriptor is checked before anything is written or locked. A file whose descriptor was
closed is forgotten, never closed again: its locks ended with the descriptor.
"""

import errno
import fcntl
import os
import struct
import sys
from pathlib import Path

from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.thread_lock import reentrant_lock

Identity = tuple[int, int]  # device and inode

if sys.platform.startswith("linux"):
    _FLOCK = struct.Struct("hhqqi")  # type, whence, start, length, pid

    def _write_lock(index: int) -> bytes:
        return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0)

    def _lock_type(flock: bytes) -> int:
        return int(_FLOCK.unpack(flock)[0])
else:  # the BSDs and macOS
    _FLOCK = struct.Struct("qqihh")  # start, length, pid, type, whence

    def _write_lock(index: int) -> bytes:
        return _FLOCK.pack(index, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)

    def _lock_type(flock: bytes) -> int:
        return int(_FLOCK.unpack(flock)[3])


def identity_of(path: str | os.PathLike[str]) -> Identity | None:
    """Return device and inode of a file, or `None` if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        if is_interruption(exc):
            raise
        return None
    return found.st_dev, found.st_ino


def identity_of_descriptor(descriptor: int) -> Identity | None:
    """Return device and inode of an open file, or `None` if the descriptor is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError as exc:
        if exc.errno != errno.EBADF:  # raised by a signal handler
            raise
        return None
    return found.st_dev, found.st_ino


class SlotFile:
    """One file as this process has it open. Created by `open_slot_file`.

    `descriptor` is -1 once the file is closed or forgotten. `slot` needs no lock: locking one twice
    in a process does no harm, and the first slot that is noted is the one.
    """

    def __init__(self, path: Path, slots: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(path, flags, 0o600)
        found = os.fstat(self.descriptor)
        self.identity: Identity = (found.st_dev, found.st_ino)
        self.slot: int | None = None
        """The slot of this process."""
        self._slots = slots

    def is_intact(self) -> bool:
        """Return True if the descriptor is still the one of this file."""
        return identity_of_descriptor(self.descriptor) == self.identity

    def claim(self) -> int | None:
        """Return the slot of this process: its present one, or the first free one; `None` if none is."""
        if self.slot is None:
            found = next((index for index in range(self._slots) if self.try_lock(index)), None)
            if self.slot is None:  # else a signal handler has claimed it here
                self.slot = found
        return self.slot

    def try_lock(self, index: int) -> bool:
        """Lock a slot that is not this process's own; return False if another process holds it."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except OSError as exc:
            if exc.errno is None:  # raised by a signal handler
                raise
            return False
        return True

    def unlock(self, index: int) -> None:
        """Release a slot that `try_lock` locked. A file that was closed has none."""
        if self.descriptor >= 0:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, index)

    def is_locked_elsewhere(self, index: int) -> bool:
        """Return True if another process holds the slot; change nothing."""
        found = fcntl.fcntl(self.descriptor, fcntl.F_GETLK, _write_lock(index))
        return _lock_type(found) != fcntl.F_UNLCK


class _OpenFiles:
    """The slot files of this process.

    `lock` guards `files`. It is reentrant: a signal handler that opens a file inside `open` is the
    first, and the other descriptor stays open, unused. A forked child replaces it.
    """

    def __init__(self) -> None:
        self.lock = reentrant_lock()
        self.files: dict[Identity, SlotFile] = {}

    def open(self, path: Path, slots: int) -> SlotFile:
        """Return the file at the path; create it if needed, and open it once in this process."""
        with self.lock:
            self.forget_lost()
            found = identity_of(path)
            if found is not None and found in self.files:
                return self.files[found]
            # If the file at the path was replaced by one that is already open, the new descriptor
            # must stay open too.
            file = SlotFile(path, slots)
            return self.files.setdefault(file.identity, file)

    def forget_lost(self) -> None:
        """Forget the files whose descriptors other code has closed."""
        for identity, file in self.files.copy().items():
            if not file.is_intact():
                self.files.pop(identity, None)
                file.descriptor, file.slot = -1, None

    def close_if_unlinked(self, file: SlotFile) -> bool:
        """Close the file if it has no link left, as no process can check our slot then."""
        with self.lock:
            if not file.is_intact() or os.fstat(file.descriptor).st_nlink:
                return False
            if self.files.pop(file.identity, None) is not file:
                return False
            descriptor, file.descriptor = file.descriptor, -1
            os.close(descriptor)
            return True

    def after_fork_in_child(self) -> None:
        self.lock = reentrant_lock()
        for file in self.files.values():
            file.slot = None


_open_files = _OpenFiles()
open_slot_file = _open_files.open
close_if_unlinked = _open_files.close_if_unlinked
forks.register(in_child=_open_files.after_fork_in_child)
