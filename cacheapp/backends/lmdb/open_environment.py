"""An LMDB environment that this process has open, with its databases and reference bits."""

import os
from pathlib import Path
from typing import TypeAlias

import lmdb

from cacheapp.backends.lmdb.directory import (
    BITS_FILE,
    DATA_FILE,
    DATABASES,
    open_environment,
    overwrites_in_place,
)
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.reference_bits import ReferenceBits
from cacheapp.backends.local.private_directory import pinned_directory
from cacheapp.backends.local.slot_file import Identity

Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class OpenEnvironment:
    """One opened environment. It is replaced, not reopened."""

    def __init__(self, path: Path, limits: SizeLimits) -> None:
        self.path = path
        self.data = str(path / DATA_FILE)
        self.limits = limits
        with pinned_directory(path) as pinned:
            self.reference_bits = ReferenceBits(pinned / BITS_FILE, limits.reference_bits)
            self.flags = self.reference_bits.flags
            found = os.stat(pinned / DATA_FILE)
            self.lmdb = open_environment(pinned, limits, writemap=overwrites_in_place(path))
        self.begin = self.lmdb.begin
        try:
            # The binding begins a write transaction for this. So a process that opens an
            # environment waits for a stopped writer, even if it only reads afterwards.
            self.entries, self.queue, self.deadlines, self.meta = (
                self.lmdb.open_db(name, create=False) for name in DATABASES
            )
        except BaseException:
            self.lmdb.close()
            raise
        self.identity: Identity = (found.st_dev, found.st_ino)
        # Private to this process; guarded by LMDB's write lock.
        self.now = 0.0  # when the current write transaction began
        self.credit = 0  # a hint: bytes to write before the next check of the used space
        self.due_s = 0.0  # a hint: when to look for expired entries again
