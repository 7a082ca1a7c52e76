"""A small file that all processes map: one reference bit per entry, a few flags and counters.

A reader sets an entry's bit without a transaction. This is all that a hit writes, and what SIEVE
decides by. The sequence number of an entry determines its bit; if two entries share one, both look
used when one of them is. Nothing but the choice of entries to evict depends on the bits.

An environment that is a copy of another store also has counters of changes, see `count_change`.
"""

import mmap
import os
import zlib
from pathlib import Path

from cacheapp.backends.local.descriptors import descriptors_of, next_numbers
from cacheapp.backends.local.interruptions import suppress_failure

HEAD_BYTES = 4096
RETIRED = 0  # a flag, not 0: check the directory again
WRITER_ACTIVE = 1  # a flag, not 0: a process is writing, or was killed during a write. A hint.
_FLAG_BYTES = 8
EVICTED, EXPIRED, REJECTED = range(1, 4)  # counters; only the holder of the write lock adds to them


def file_bytes(bits: int, change_counters: int) -> int:
    """Return the size of the file."""
    return HEAD_BYTES + bits + 8 * change_counters


class ReferenceBits:
    """The file as this process has it mapped."""

    __slots__ = ("_change_mask", "_changes", "bits", "counters", "descriptors", "flags", "mask")

    def __init__(self, path: Path, bits: int, change_counters: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            numbers = next_numbers(1)
            whole = mmap.mmap(descriptor, file_bytes(bits, change_counters))
            self.descriptors = descriptors_of([(found.st_dev, found.st_ino)], numbers)
            self.descriptors.pop(descriptor, None)
        finally:
            os.close(descriptor)
        """The map has a descriptor of its own, which Python closes when the map ends."""
        whole.madvise(mmap.MADV_RANDOM)  # otherwise the kernel also reads the pages around a bit
        mapped = memoryview(whole)
        self.flags = mapped[:HEAD_BYTES]
        self.counters = self.flags.cast("Q")
        self.bits = mapped[HEAD_BYTES : HEAD_BYTES + bits]
        """`bits[number & mask]` is the bit, stored in one byte, of the entry with this number."""
        self.mask = bits - 1
        self._changes = mapped[HEAD_BYTES + bits :].cast("Q") if change_counters else None
        self._change_mask = change_counters - 1

    def changes(self, name: bytes) -> int:
        """Return a number that differs from all earlier ones after each `count_change` of this name."""
        assert self._changes is not None  # noqa: S101 (for the type checker)
        return self._changes[zlib.crc32(name) & self._change_mask]

    def count_change(self, name: bytes) -> None:
        """Count that the entry of a name was removed, or that a value of it became old.

        Only the holder of the write lock calls this. It is not undone if the transaction is. Names
        share counters: a number that changed means that the entry may have changed.
        """
        if self._changes is not None:
            self._changes[zlib.crc32(name) & self._change_mask] += 1


def retire(path: Path) -> None:
    """Make all processes that have the environment of this file open check the directory again."""
    with suppress_failure(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, b"\1", RETIRED)
        finally:
            os.close(descriptor)


def is_retired(path: Path) -> bool:
    """Return True if the environment of this file was retired: a process is removing it, or died then."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.pread(descriptor, 1, RETIRED) != b"\0"
    finally:
        os.close(descriptor)


def copy_counters(old: Path, new: Path) -> None:
    """Copy the counters of what was evicted, expired and rejected, but not the flags."""
    with old.open("rb") as source, new.open("r+b", buffering=0) as target:
        source.seek(_FLAG_BYTES)
        target.seek(_FLAG_BYTES)
        target.write(source.read(HEAD_BYTES - _FLAG_BYTES))
