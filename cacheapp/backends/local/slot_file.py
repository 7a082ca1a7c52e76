"""A file with a slot per process: who holds a slot is known to be alive, for the kernel says so.

Invariant: at most one process holds a slot, and none that is dead does. It holds by a POSIX lock on
the slot's byte, which the kernel releases however the process ends. What is to be known about these
locks (fcntl(2)) shapes this module:

- Closing *any* descriptor of the file drops all that the process holds. So a process opens a file
  once (`open_slot_file`), and closes it only when no directory leads to it any more.
- A forked child inherits none, and its closing drops none of the parent's: it holds nothing until
  it asks. Nor does a living child keep what its dead parent held.
- They never conflict within a process. So this process knows its own slot by itself.
"""

import fcntl
import os
import struct
import sys
import threading
from pathlib import Path

Identity = tuple[int, int]  # device and inode

if sys.platform.startswith("linux"):
    _FLOCK = struct.Struct("hhqqi")  # type, whence, start, length, pid

    def _asked(index: int) -> bytes:
        return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0)

    def _type(answer: bytes) -> int:
        return int(_FLOCK.unpack(answer)[0])
else:  # the BSDs and macOS
    _FLOCK = struct.Struct("qqihh")  # start, length, pid, type, whence

    def _asked(index: int) -> bytes:
        return _FLOCK.pack(index, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)

    def _type(answer: bytes) -> int:
        return int(_FLOCK.unpack(answer)[3])


def identity_of(path: str | os.PathLike[str]) -> Identity | None:
    """Return device and inode of a file, or `None` where there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class SlotFile:
    """One file as this process has it open. Its user guards `slot`; get it from `open_slot_file`."""

    def __init__(self, path: Path, slots: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(path, flags, 0o600)
        found = os.fstat(self.descriptor)
        self.identity: Identity = (found.st_dev, found.st_ino)
        self.slot: int | None = None
        """The slot of this process."""
        self._slots = slots

    def claim(self) -> int | None:
        """Return the slot of this process: the one it has, or the first that is free, if any is."""
        if self.slot is None:
            self.slot = next((index for index in range(self._slots) if self.try_lock(index)), None)
        return self.slot

    def try_lock(self, index: int) -> bool:
        """Hold a slot that is not ours; return whether no other process has it."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except OSError:
            return False
        return True

    def unlock(self, index: int) -> None:
        """Undo `try_lock`."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, index)

    def is_locked_elsewhere(self, index: int) -> bool:
        """Return whether another process holds the slot; take and change nothing."""
        answer = fcntl.fcntl(self.descriptor, fcntl.F_GETLK, _asked(index))
        return _type(answer) != fcntl.F_UNLCK


class _Opened:
    """The slot files of this process. `lock` guards them; reentrant, as signal handlers may come."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: dict[Identity, SlotFile] = {}

    def open(self, path: Path, slots: int) -> SlotFile:
        """Return the file at the path, made if need be, and opened at most once by this process."""
        with self.lock:
            found = identity_of(path)
            if found is not None and found in self.files:
                return self.files[found]
            # Should another file have come to the path meanwhile, one that is open already, then
            # the new descriptor must stay open too.
            file = SlotFile(path, slots)
            return self.files.setdefault(file.identity, file)

    def close_if_unlinked(self, file: SlotFile) -> bool:
        """Close the file if no directory leads to it any more, so that nobody asks about our slot."""
        with self.lock:
            if os.fstat(file.descriptor).st_nlink or self.files.get(file.identity) is not file:
                return False
            del self.files[file.identity]
            os.close(file.descriptor)
            file.descriptor = -1
            return True

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        for file in self.files.values():
            file.slot = None


_opened = _Opened()
open_slot_file = _opened.open
close_if_unlinked = _opened.close_if_unlinked
os.register_at_fork(after_in_child=_opened.after_fork_in_child)
