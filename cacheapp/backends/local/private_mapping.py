"""Replace a shared mapping of a file by a private copy, so that changes stay in this process."""

import ctypes
import mmap
import os
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption

_MAPS = Path("/proc/self/maps")
_FIXED = 0x10  # MAP_FIXED, which the mmap module does not name


def make_mapping_private(path: Path) -> bool:
    """Make every mapping of the file private; return False where that is not possible."""
    try:
        inode = path.stat().st_ino
        ranges = _mappings(inode)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        if is_interruption(exc):
            raise
        return False
    try:
        return bool(ranges) and _remap_all(descriptor, ranges)
    finally:
        os.close(descriptor)


def _remap_all(descriptor: int, ranges: list[tuple[int, int, int]]) -> bool:
    return all(_remap(descriptor, *each) for each in ranges)


def _mappings(inode: int) -> list[tuple[int, int, int]]:
    """Return address, length and offset of the mappings of an inode; see proc_pid_maps(5)."""
    found = []
    for line in _MAPS.read_text(errors="surrogateescape").splitlines():
        addresses, _permissions, offset, _device, number, *_path = line.split(maxsplit=5)
        if int(number) == inode:
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append((start, end - start, int(offset, 16)))
    return found


def _remap(descriptor: int, address: int, length: int, offset: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    ]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_PRIVATE | _FIXED
    found: int | None = libc.mmap(address, length, protection, flags, descriptor, offset)
    return found == address
