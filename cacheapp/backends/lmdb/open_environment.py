"""An LMDB environment that this process has open, and what belongs to it."""

import os
from pathlib import Path
from typing import TypeAlias

import lmdb

from cacheapp.backends.lmdb.directory import DATABASES, open_environment, overwrites_in_place
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.reference_bits import ReferenceBits
from cacheapp.backends.local.slot_file import Identity

Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class OpenEnvironment:
    """An environment that is open, and what belongs to it."""

    def __init__(self, path: Path, limits: SizeLimits) -> None:
        self.path = path
        self.data = str(path / "data.mdb")
        self.limits = limits
        self.reference_bits = ReferenceBits(path / "marks", limits.slots)
        self.flags = self.reference_bits.flags
        self.lmdb = open_environment(path, limits, writemap=overwrites_in_place(path))
        self.begin = self.lmdb.begin
        try:
            # The binding begins a write transaction for this: so whoever opens an environment
            # waits for a writer that stands still, even if he only wants to read.
            self.entries, self.queue, self.deadlines, self.meta = (
                self.lmdb.open_db(name, create=False) for name in DATABASES
            )
            found = os.stat(self.data)
        except BaseException:
            self.lmdb.close()
            raise
        self.identity: Identity = (found.st_dev, found.st_ino)
        # Of this process alone. Whoever writes has the write lock.
        self.now = 0.0  # when the write transaction that is under way began
        self.credit = 0  # a hint: bytes that may be written before the room is looked at
        self.due_s = 0.0  # a hint: when to look for expired entries again
