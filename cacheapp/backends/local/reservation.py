"""Reserve the space of a file before it is mapped: a store to a page without space raises SIGBUS."""

import fcntl
import os
from pathlib import Path

_CHUNK = bytes(1 << 20)


def reserve(descriptor: int, size: int, start: int = 0) -> None:
    """Give the file at least `size` bytes, with space on the disk; raise `OSError` if it is full.

    The bytes before `start` have space already, and are not touched.

    Where `posix_fallocate` is missing (macOS), zeros are appended: if another process extends the
    file at the same time, it becomes longer than `size`, and nothing is overwritten.
    """
    if hasattr(os, "posix_fallocate"):
        if size > start:
            os.posix_fallocate(descriptor, start, size - start)
        return
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
    try:
        _append_zeros(descriptor, size)
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _append_zeros(descriptor: int, size: int) -> None:
    while (missing := size - os.fstat(descriptor).st_size) > 0:
        os.write(descriptor, _CHUNK[:missing])


def preallocate(path: Path, size: int, start: int = 0) -> None:
    """Give the file at the path at least `size` bytes, see `reserve`; create it if it is missing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        reserve(descriptor, size, start)
    finally:
        os.close(descriptor)
