"""Who holds a lease or a lock of a local store, and whether it lives: the kernel knows at once.

A *holder* is a process, named by 12 bytes: its slot in the alias's file of holders, and a nonce
that it wrote into the slot's record when it claimed it. It is alive if another process holds the
slot and the nonce is still there, or if the slot and the nonce are ours. Slots are used again,
nonces never: a dead holder's name is never that of a living one.

Order of a claim: the lock, then the nonce, then the first lease of that name. So a name that stands
in a store was written here before, and stays until the slot is claimed by another, which only its
holder's death allows. In the short time between another's lock and its nonce, the dead one's nonce
stands in a slot that is held: whoever asks then is told "alive" once more, and asks again.

The file is followed as databases are: who is asked about is looked up in the one at the path.
Removing or replacing it alone, and not the store beside it, makes all holders look dead.
"""

import os
import secrets
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from cacheapp.backends.local.slot_file import (
    SlotFile,
    close_if_unlinked,
    identity_of,
    open_slot_file,
)
from cacheapp.errors import StoreUnavailable

HOLDER_BYTES = 12
UNKNOWN = bytes(HOLDER_BYTES)
"""Stands for a process that got no slot: it counts as alive, and its leases end by their time."""

_NONCE_BYTES = 8
_SLOTS = 4096  # processes at a time
_NAME = struct.Struct(f">I{_NONCE_BYTES}s")


class _Names:
    """The name of this process in each file. `lock` guards them, and the slots in these files.

    Reentrant: a signal handler may use the cache while its thread is in here.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.by_file: dict[SlotFile, bytes] = {}


_names = _Names()
os.register_at_fork(after_in_child=_names.__init__)  # type: ignore[misc]  # it has no slot yet


class HolderRegistry:
    """The holders of one alias. `prepare` makes the directory of their file, or looks at it again.

    `_names.lock` guards `_file`. No other lock of the cache is taken under it.
    """

    def __init__(self, path: Path, prepare: Callable[[], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._file: SlotFile | None = None

    def own_name(self) -> bytes:
        """Return the name of this process; raise `StoreUnavailable` if it can have none."""
        with _names.lock:
            try:
                file = self._followed()
                return _names.by_file.get(file) or self._named(file)
            except OSError as exc:
                raise StoreUnavailable(f"{self._path}: {exc.strerror}; nothing was done") from exc

    def own_name_or_unknown(self) -> bytes:
        """Return the name of this process, or `UNKNOWN`."""
        try:
            return self.own_name()
        except StoreUnavailable:
            return UNKNOWN

    def _named(self, file: SlotFile) -> bytes:
        slot = file.claim()
        if slot is None:
            raise StoreUnavailable(
                f"{self._path}: all {_SLOTS} slots are held by living processes; nothing was done"
            )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        os.pwrite(file.descriptor, nonce, slot * _NONCE_BYTES)
        name = _names.by_file[file] = _NAME.pack(slot, nonce)
        return name

    def is_alive(self, holder: bytes) -> bool:
        """Return whether the holder is not known to be dead."""
        if holder == UNKNOWN:
            return True
        slot, nonce = _NAME.unpack(holder)
        with _names.lock:
            try:
                file = self._followed()
                if slot == file.slot:
                    return _names.by_file.get(file) == holder
                found = os.pread(file.descriptor, _NONCE_BYTES, slot * _NONCE_BYTES)
                return found == nonce and file.is_locked_elsewhere(slot)
            except (OSError, StoreUnavailable):
                return True  # their time decides

    def _followed(self) -> SlotFile:
        """Return the file that is at the path now."""
        file = self._file
        found = identity_of(self._path)
        # Another object may have closed it, after which another file may get its identity.
        if file is not None and file.identity == found and file.descriptor >= 0:
            return file
        if found is None:
            self._prepare()
        self._file = open_slot_file(self._path, _SLOTS)
        if (
            file is not None
            and file.descriptor >= 0
            and file is not self._file
            and close_if_unlinked(file)
        ):
            _names.by_file.pop(file, None)
        return self._file
