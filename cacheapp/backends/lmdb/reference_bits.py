"""A small file that all processes map: one reference bit per entry, a few flags and counters.

A reader sets an entry's bit without a transaction. This is all that a hit writes, and what SIEVE
decides by. The sequence number of an entry determines its bit; if two entries share one, both look
used when one of them is. Nothing but the choice of entries to evict depends on the bits.
"""

import mmap
import os
from pathlib import Path

from cacheapp.backends.local.descriptors import descriptors_of, next_numbers
from cacheapp.backends.local.interruptions import suppress_failure

HEAD_BYTES = 4096
RETIRED = 0  # a flag, not 0: check the directory again
WRITER_ACTIVE = 1  # a flag, not 0: a process is writing, or was killed during a write. A hint.
EVICTED, EXPIRED, REJECTED = range(1, 4)  # counters; only the holder of the write lock adds to them


def file_bytes(bits: int) -> int:
    """Return the size of the file."""
    return HEAD_BYTES + bits


class ReferenceBits:
    """The file as this process has it mapped."""

    __slots__ = ("bits", "counters", "descriptors", "flags", "mask")

    def __init__(self, path: Path, bits: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            numbers = next_numbers(1)
            whole = mmap.mmap(descriptor, file_bytes(bits))
            self.descriptors = descriptors_of([(found.st_dev, found.st_ino)], numbers)
            self.descriptors.pop(descriptor, None)
        finally:
            os.close(descriptor)
        """The map has a descriptor of its own, which Python closes when the map ends."""
        whole.madvise(mmap.MADV_RANDOM)  # otherwise the kernel also reads the pages around a bit
        mapped = memoryview(whole)
        self.flags = mapped[:HEAD_BYTES]
        self.counters = self.flags.cast("Q")
        self.bits = mapped[HEAD_BYTES:]
        """`bits[number & mask]` is the bit, stored in one byte, of the entry with this number."""
        self.mask = bits - 1


def retire(path: Path) -> None:
    """Make all processes that have the environment of this file open check the directory again."""
    with suppress_failure(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, b"\1", RETIRED)
        finally:
            os.close(descriptor)
