"""Keeps processes of two PID namespaces out of one LMDB environment: its write lock needs one.

LMDB's write lock is a robust mutex. The kernel releases the mutex of a thread that died, and compares
thread ids as the thread's own PID namespace numbers them. Two containers number their threads alike,
so a death in one releases a lock that is held in the other, and an acknowledged write is lost. LMDB's
table of readers compares process ids in the same way. Two boot ids on one machine (a container
with a `/proc` of its own) are as bad: each takes the other's environment for one of an older boot,
and removes it.

Invariant: while a process has an environment open, it holds a *claim*, a shared lock on the file
`namespace-<boot id>-<inode of the PID namespace>` beside it, and no process of another namespace holds
one. A process takes its own claim first and looks for others then, so of two that come at the same
moment at least one sees the other; it releases its claim and raises an error. Claims are locks of an
open file description: they do not depend on process ids, and end with the last process that has the
description.
"""

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from cacheapp.backends.local.boot import boot_id
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.paths import entries
from cacheapp.backends.local.slot_file import Identity
from cacheapp.errors import StoreUnavailable

_NAME = "namespace-"
_NAMESPACE = "/proc/self/ns/pid"
_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid
_ATTEMPTS = 100


_CLAIMED, _OPEN = 0, 1  # bytes of the file


def _request(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def namespace_name() -> str | None:
    """Return the name of this process's namespace; `None` on systems that have none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        inode = os.stat(_NAMESPACE).st_ino
    except OSError as exc:
        if is_interruption(exc):
            raise
        raise StoreUnavailable(
            f"cannot read {_NAMESPACE} ({exc.strerror}), which identifies the PID namespace of this "
            "process; mount /proc; nothing was done"
        ) from exc
    return f"{boot_id()}-{inode}"


class Claim:
    """A claim of a directory for this process's PID namespace, held until it is released.

    Raises `StoreUnavailable` while processes of another namespace hold claims. On a system without
    PID namespaces it claims nothing.
    """

    def __init__(self, directory: Path) -> None:
        name = namespace_name()
        self._descriptor = -1
        self._identity: Identity | None = None
        if name is None:
            return
        own = directory / f"{_NAME}{name}"
        self._descriptor = _shared_lock(own)
        try:
            found = os.fstat(self._descriptor)
            self._identity = found.st_dev, found.st_ino
            _refuse_others(directory, own)
        except BaseException:
            self.release()
            raise

    def is_held(self) -> bool:
        """Return False if this process closed the descriptor: the claim ended with it."""
        return self._identity is None or self._links() is not None

    def is_linked(self) -> bool:
        """Return False if it is not held, or its file was removed: other namespaces do not see it."""
        return self._identity is None or bool(self._links())

    def _links(self) -> int | None:
        """Return the number of links of the claim's file; `None` if the descriptor is not its own."""
        try:
            found = os.fstat(self._descriptor)
        except OSError as exc:
            if exc.errno != errno.EBADF:  # raised by a signal handler
                raise
            return None
        return found.st_nlink if (found.st_dev, found.st_ino) == self._identity else None

    def mark_open(self) -> None:
        """Note that this process opens the environment; the mark ends with the claim.

        A process that has a claim alone may still wait for the directory's lock.
        """
        if self._identity is not None:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_RDLCK, _OPEN))

    def is_open_elsewhere(self) -> bool:
        """Return True if another process has the environment open."""
        return self._identity is not None and _has_other_locks(self._descriptor, _OPEN)

    def release(self) -> None:
        """End the claim."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _refuse_others(directory: Path, own: Path) -> None:
    for other in _others(directory, own):
        if _is_held(other):
            raise StoreUnavailable(
                f"{directory} is in use by processes of another PID namespace ({other.name}, "
                f"this process: {own.name}). LMDB cannot share its lock between containers. "
                "Give each container a LOCATION of its own, run them in one PID namespace, or "
                "use RedisCache; nothing was done"
            )


def remove_stale_claims(directory: Path) -> None:
    """Remove the files of namespaces that no process uses; under the directory's lock."""
    name = namespace_name()
    for other in _others(directory, directory / f"{_NAME}{name}"):
        try:
            descriptor = os.open(other, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as exc:
            if is_interruption(exc):
                raise
            continue
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, _CLAIMED))
            other.unlink(missing_ok=True)
        except OSError as exc:
            if exc.errno is None:  # raised by a signal handler
                raise
            # A process of that namespace came back.
        finally:
            os.close(descriptor)


def _shared_lock(path: Path) -> int:
    """Return a descriptor with a shared lock on the file at the path, made if it is missing."""
    for _ in range(_ATTEMPTS):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            # Waits only for `remove_stale_claims` of another namespace, which is brief.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _request(fcntl.F_RDLCK, _CLAIMED))
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed between the opening and the lock
    raise StoreUnavailable(f"{path}: is removed again and again; nothing was done")


def _others(directory: Path, own: Path) -> Iterator[Path]:
    for path in entries(directory, _NAME):
        if path.name != own.name:
            yield path


def _is_held(path: Path) -> bool:
    """Return True if a process holds a claim in the file; change nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as exc:
        if is_interruption(exc):
            raise
        return False
    try:
        return _has_other_locks(descriptor, _CLAIMED)
    finally:
        os.close(descriptor)


def _has_other_locks(descriptor: int, byte: int) -> bool:
    """Return True if another open file description has a lock of this byte."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, byte))
    return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK
