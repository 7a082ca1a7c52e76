"""Move an environment into larger files, with its entries, while other processes have it open.

Its data file and LMDB's lock file get a second name in a new directory, and the data file becomes
longer there. So processes that have the old size mapped and those with the new one share one database
and one write lock until the former notice; a page behind the end of a map is an error of LMDB
(`MapResizedError`), and they open the environment again. The file of reference bits is a new one.

Invariant: nobody opens the data file with the old size once it may be mapped with the new one, because
LMDB cuts a file to the size with which it is opened, and a store behind the end of a file is a SIGBUS.
So a process that opens an environment holds a shared lock of its directory, and has found it not
retired under that lock; the move holds an exclusive lock until the old names are gone.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.reference_bits import copy_counters, file_bytes, is_retired
from cacheapp.backends.local.reservation import preallocate

DATA_FILE, LOCK_FILE, BITS_FILE = "data.mdb", "lock.mdb", "reference-bits"
_RETRY_S = 0.002


@contextlib.contextmanager
def opening(environment: Path) -> Iterator[None]:
    """Keep the environment in its size while it is opened.

    Raises `BlockingIOError` while it is moved, and `FileNotFoundError` if it is retired.
    """
    with _locked(environment, fcntl.LOCK_SH):
        if is_retired(environment / BITS_FILE):
            raise FileNotFoundError(errno.ENOENT, "it is retired", str(environment))
        yield


@contextlib.contextmanager
def moving(environment: Path, wait_s: float = 1.0) -> Iterator[None]:
    """Keep other processes from opening it; raise `BlockingIOError` if one has not finished that.

    Opening takes a millisecond, but it waits for a stopped writer.
    """
    with _locked(environment, fcntl.LOCK_EX, wait_s):
        yield


@contextlib.contextmanager
def _locked(directory: Path, kind: int, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock of the directory itself."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, kind, wait_s)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, wait_s: float) -> None:
    """Acquire the lock within a limit: the child of a fork in a signal handler may hold it too."""
    deadline_s = clock.monotonic_s() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if exc.errno is None or clock.monotonic_s() >= deadline_s:  # a handler's, or too late
                raise
            time.sleep(_RETRY_S)
        else:
            return


def added_bytes(old: SizeLimits, new: SizeLimits) -> int:
    """Return what the move takes of the disk."""
    return new.total_bytes - old.total_bytes + file_bytes(old.reference_bits, old.change_counters)


def can_move(old: SizeLimits, new: SizeLimits) -> bool:
    """Return True if files of the old limits can become files of the new ones.

    Counters of changes cannot: a number in progress would compare with another counter.
    """
    return new.map_bytes >= old.map_bytes and not (old.counts_changes or new.counts_changes)


def move_files(environment: Path, into: Path, old: SizeLimits, limits: SizeLimits) -> None:
    """Give the files of the environment second names in a directory, with the sizes of the limits.

    Space is reserved behind the old end only: where the filesystem cannot reserve, the C library writes
    a byte to each block, and other processes write to those before the end.
    """
    bits = into / BITS_FILE
    preallocate(bits, file_bytes(limits.reference_bits, limits.change_counters))
    copy_counters(environment / BITS_FILE, bits)
    for name in (DATA_FILE, LOCK_FILE):
        os.link(environment / name, into / name, follow_symlinks=False)
    preallocate(into / DATA_FILE, limits.map_bytes, old.map_bytes)
