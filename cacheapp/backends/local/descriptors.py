"""Notice that other code closed the descriptors of a store, and let its library close it all the same.

Code that becomes a daemon closes all descriptors; their numbers then belong to files of others. SQLite
and LMDB do not notice: they would write to those files, and closing the store would close them. So the
numbers are noted when a store is opened, and checked before it is used. `parked` puts `/dev/null` in
place of a lost one while the library closes it, and puts the other file back.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping

from cacheapp.backends.local.slot_file import Identity, identity_of, identity_of_descriptor

Descriptors = Mapping[int, Identity]


class DescriptorsLost(Exception):
    """Other code has closed the descriptors of a database; nothing was written."""


def database_descriptors(database: str) -> dict[int, Identity]:
    """Return all descriptors of this process for a database, its WAL and its shared memory."""
    return descriptors_of(
        identity
        for suffix in ("", "-wal", "-shm")
        if (identity := identity_of(database + suffix)) is not None
    )


def descriptors_of(identities: Iterable[Identity]) -> dict[int, Identity]:
    """Return all descriptors of this process for these files."""
    files = frozenset(identities)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # a system without it: then nothing is checked
        return {}
    found = ((number, identity_of_descriptor(number)) for number in numbers)
    return {number: identity for number, identity in found if identity in files and identity}


def are_intact(descriptors: Descriptors) -> bool:
    """Return True if all of them are still of the same files."""
    for number, identity in descriptors.items():
        try:
            found = os.fstat(number)
        except OSError:
            return False
        if (found.st_dev, found.st_ino) != identity:
            return False
    return True


@contextlib.contextmanager
def parked(descriptors: Descriptors) -> Iterator[None]:
    """Let a library close these numbers in the block; those of other files are theirs again after it.

    The locks that this process holds on those files by `fcntl` end, as with any closed descriptor.
    """
    saved: dict[int, tuple[int, bool]] = {}
    low = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    null = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, max(descriptors, default=low) + 1)
    os.close(low)
    unused = identity_of_descriptor(null)
    try:
        for number, identity in descriptors.items():
            found = identity_of_descriptor(number)
            if found == identity:
                continue
            if found is None:
                # This exact number, unless another thread has just got it.
                other = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, number)
                if other != number:
                    os.close(other)
            else:
                copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, null)
                saved[number] = copy, os.get_inheritable(number)
                os.dup2(null, number, inheritable=False)
        yield
    finally:
        os.close(null)
        for number, (copy, inheritable) in saved.items():
            os.dup2(copy, number, inheritable=inheritable)
            os.close(copy)
        for number in descriptors.keys() - saved.keys():
            if identity_of_descriptor(number) == unused:
                os.close(number)
