"""Test files for downloads: their bytes follow from their number, so anyone can check them."""

import hashlib
from collections.abc import Iterator

CHUNK_BYTES = 64 * 1024


def content(number: int, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of file `number`, in chunks.

    No two chunks are equal, so a lost, repeated or misplaced one is detected.
    """
    for start in range(0, size, CHUNK_BYTES):
        seed = b"%d:%d" % (number, start)
        yield hashlib.shake_256(seed).digest(min(CHUNK_BYTES, size - start))
