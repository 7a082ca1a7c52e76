"""Files to try downloads with: their bytes follow from their number, so that anyone can check them."""

import hashlib
from collections.abc import Iterator

CHUNK_BYTES = 64 * 1024


def content(number: int, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of file `number`, in chunks.

    No two chunks are alike, so that one lost, doubled or out of place shows.
    """
    for start in range(0, size, CHUNK_BYTES):
        seed = b"%d:%d" % (number, start)
        yield hashlib.shake_256(seed).digest(min(CHUNK_BYTES, size - start))
