"""Notice that other code closed the descriptors of a store; its library can still close it safely.

Code that becomes a daemon closes all descriptors; their numbers then belong to files of others.
SQLite and LMDB do not notice: they would write to those files, and closing the store would close
them. So the numbers are noted when a store is opened, and checked before it is used. `parked` puts
`/dev/null` in place of a lost one while the library closes it, and puts the other file back.
"""

import contextlib
import errno
import fcntl
import os
import select
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.slot_file import Identity, identity_of_descriptor

Descriptors = Mapping[int, Identity]


class DescriptorsLost(Exception):
    """Other code has closed the descriptors of a database; nothing was written."""


def next_numbers(count: int) -> list[int]:
    """Return the numbers of the next files that this process opens, unless other threads open some.

    Returns fewer where that many descriptors are not free, and none on systems without epoll.
    """
    if not hasattr(select, "epoll"):
        return []
    # Objects that close themselves, so that no exception of a signal handler leaves one open.
    held: list[select.epoll] = []
    with suppress_failure(OSError):
        held.extend(select.epoll() for _ in range(count))
    return [each.fileno() for each in held]


def descriptors_of(
    opened: Sequence[Identity], numbers: Iterable[int], perhaps: Sequence[Identity] = ()
) -> dict[int, Identity]:
    """Return the descriptors of files that a library has just opened.

    `opened` names a file as often as it was opened, `perhaps` those that may have been; `numbers`
    are the `next_numbers` before that. If other threads opened or closed files in between, the
    result contains all descriptors of this process for these files: to find those takes some
    milliseconds where thousands are open.
    """
    files = (*opened, *perhaps)
    found = _among(numbers, files)
    if Counter(opened) <= Counter(found.values()):
        return found
    try:
        return _among(map(int, os.listdir("/proc/self/fd")), files)
    except FileNotFoundError as exc:
        if is_interruption(exc):
            raise
        return {}  # a system without it: then nothing is checked


def _among(numbers: Iterable[int], files: Sequence[Identity]) -> dict[int, Identity]:
    found = ((number, identity_of_descriptor(number)) for number in numbers)
    return {number: identity for number, identity in found if identity in files and identity}


def still_intact(descriptors: Descriptors) -> dict[int, Identity]:
    """Return those that are still of the same files."""
    return {number: each for number, each in descriptors.items() if are_intact({number: each})}


def are_intact(descriptors: Descriptors) -> bool:
    """Return True if all of them are still of the same files."""
    for number, identity in descriptors.items():
        try:
            found = os.fstat(number)
        except OSError as exc:
            if exc.errno != errno.EBADF:  # raised by a signal handler
                raise
            return False
        if (found.st_dev, found.st_ino) != identity:
            return False
    return True


def _park(number: int, identity: Identity, null: int, saved: dict[int, tuple[int, bool]]) -> None:
    found = identity_of_descriptor(number)
    if found == identity:
        return
    if found is None:
        # This exact number, unless another thread has just got it.
        other = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, number)
        if other != number:
            os.close(other)
    else:
        copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, null)
        saved[number] = copy, os.get_inheritable(number)
        os.dup2(null, number, inheritable=False)


@contextlib.contextmanager
def parked(descriptors: Descriptors) -> Iterator[None]:
    """Let a library close these numbers in the block; other files get theirs back after it.

    The locks that this process holds on those files by `fcntl` end, as with any closed descriptor.
    """
    saved: dict[int, tuple[int, bool]] = {}
    low = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    null = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, max(descriptors, default=low) + 1)
    os.close(low)
    unused = identity_of_descriptor(null)
    try:
        for number, identity in descriptors.items():
            _park(number, identity, null, saved)
        yield
    finally:
        os.close(null)
        for number, (copy, inheritable) in saved.items():
            os.dup2(copy, number, inheritable=inheritable)
            os.close(copy)
        for number in descriptors.keys() - saved.keys():
            if identity_of_descriptor(number) == unused:
                os.close(number)
