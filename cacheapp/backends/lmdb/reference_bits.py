"""A small file that all processes map: a mark per entry, and a few numbers.

Readers set an entry's mark without a transaction: that is all that a hit leaves behind, and SIEVE
goes by it. Which entry has which mark is a matter of its sequence number; should two entries have
the same one, then one of them seems to be used when the other is. Nothing but the choice of whom
to evict depends on the marks of entries.
"""

import contextlib
import mmap
import os
from pathlib import Path

HEAD_BYTES = 4096
RETIRED = 0  # not 0: look at the place again
WRITER_ACTIVE = 1  # not 0: somebody is writing, or was killed while he was. A hint.
EVICTED, EXPIRED, REJECTED = range(1, 4)  # numbers; only who holds the write lock adds to them


def file_bytes(slots: int) -> int:
    """Return the size of the file."""
    return HEAD_BYTES + slots


class ReferenceBits:
    """The file as this process has it mapped."""

    __slots__ = ("bits", "counters", "flags", "mask")

    def __init__(self, path: Path, slots: int) -> None:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            whole = mmap.mmap(number, file_bytes(slots))
        finally:
            os.close(number)
        whole.madvise(mmap.MADV_RANDOM)  # else a mark would bring those around it into memory
        mapped = memoryview(whole)
        self.flags = mapped[:HEAD_BYTES]
        self.counters = self.flags.cast("Q")
        self.bits = mapped[HEAD_BYTES:]
        """`used[number & mask]` is the mark of the entry with a sequence number."""
        self.mask = slots - 1


def retire(path: Path) -> None:
    """Tell all who have the environment of this file open to look at the place again."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(number, b"\1", RETIRED)
        finally:
            os.close(number)
