"""An LMDB environment that this process has open, with its databases and reference bits."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import lmdb

from cacheapp.backends.lmdb.directory import DATABASES, open_environment, overwrites_in_place
from cacheapp.backends.lmdb.growth import BITS_FILE, DATA_FILE, LOCK_FILE, opening
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.reference_bits import ReferenceBits
from cacheapp.backends.local.descriptors import are_intact, descriptors_of, next_numbers, parked
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.pid_namespace import Claim
from cacheapp.backends.local.private_directory import pinned_directory
from cacheapp.backends.local.private_mapping import make_mapping_private
from cacheapp.backends.local.slot_file import Identity, identity_of

logger = logging.getLogger(__name__)

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
ResultT = TypeVar("ResultT")


class OpenEnvironment:
    """One opened environment. It is replaced, not reopened.

    `claim` keeps other PID namespaces out; it is released when the environment is closed.
    """

    def __init__(self, path: Path, limits: SizeLimits, claim: Claim) -> None:
        self.path = path
        self.data = str(path / DATA_FILE)
        self.limits = limits
        writemap = overwrites_in_place(path)
        self.writes_to_descriptors = not writemap  # rather than to the map
        self._claim = claim
        # Private to this process; guarded by LMDB's write lock.
        self.now = 0.0  # when the current write transaction began
        self.credit = 0  # a hint: bytes to write before the next check of the used space
        self.least_charge = 0  # what a small write takes of it
        self.due_s = 0.0  # a hint: when to look for expired entries again
        claim.mark_open()
        opened = None
        try:
            with pinned_directory(path) as pinned, opening(pinned):
                self.reference_bits = ReferenceBits(
                    pinned / BITS_FILE, limits.reference_bits, limits.change_counters
                )
                self.flags = self.reference_bits.flags
                data, lock = (_identity(os.stat(pinned / name)) for name in (DATA_FILE, LOCK_FILE))
                numbers = next_numbers(3)
                opened = self.lmdb = open_environment(pinned, limits, writemap=writemap)
            self.begin = opened.begin
            # The binding begins a write transaction for this. So a process that opens an
            # environment waits for a stopped writer, even if it only reads afterwards.
            self.entries, self.queue, self.deadlines, self.meta = (
                opened.open_db(name, create=False) for name in DATABASES
            )
            self.identity = data
            # Without a map, LMDB opens the data file twice.
            files = [data, lock] if writemap else [data, data, lock]
            self._descriptors = descriptors_of(files, numbers)
        except BaseException:
            if opened is not None:
                opened.close()
            raise

    def is_at_its_path(self) -> bool:
        """Return True if its files and claim are at their paths, and its descriptors lead there."""
        return (
            identity_of(self.data) == self.identity
            and are_intact(self._descriptors)
            and self._claim.is_linked()
        )

    def has_its_descriptors(self) -> bool:
        """Return False if other code closed them: other files may have their numbers."""
        return self._claim.is_held() and are_intact(self._descriptors)

    def detach_from_parent(self) -> bool:
        """Make closing it in a forked child invisible to the parent; return False if it cannot be.

        LMDB clears the reader slots of the process that opened the environment, which is the parent.
        """
        return not _is_open(self.lmdb) or make_mapping_private(self.path / LOCK_FILE)

    def close(self) -> None:
        """Close it; no thread is inside. Files of others that have its numbers stay open.

        An interrupted call is repeated. Once LMDB has closed it, its numbers may be others'.
        """
        if _is_open(self.lmdb):
            if not self.has_its_descriptors():
                logger.warning(
                    "%s: other code of this process closed its descriptors; opening it again",
                    self.path.parent,
                    extra={"event": "cache_descriptors_lost"},
                )
            if are_intact(self._descriptors):  # also where no descriptor is free for `parked`
                self.lmdb.close()
            else:
                with parked(self._descriptors):
                    self.lmdb.close()
        if self._claim.is_held():
            self._claim.release()


def _is_open(environment: lmdb.Environment) -> bool:
    try:
        environment.path()
    except lmdb.Error as exc:
        if is_interruption(exc):
            raise
        return False
    return True


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def read_entry(env: OpenEnvironment, transaction: Transaction, name: bytes) -> bytes | None:
    """Return the stored entry of a name."""
    return transaction.get(name, None, env.entries)


def read_with_meta(
    env: OpenEnvironment, transaction: Transaction, meta_key: bytes, name: bytes
) -> tuple[bytes | None, bytes | None]:
    """Return a record of the environment itself and the stored entry of a name."""
    return transaction.get(meta_key, None, env.meta), transaction.get(name, None, env.entries)


def with_arguments(
    env: OpenEnvironment,
    transaction: Transaction,
    item: tuple[Callable[..., ResultT], tuple[Any, ...]],
) -> ResultT:
    """Return `work(env, transaction, *args)` for an item `(work, args)`."""
    work, args = item
    return work(env, transaction, *args)
