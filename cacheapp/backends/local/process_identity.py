"""Name the process that holds a lease or a lock of a local store, and check whether it is alive.

A *holder* is a process, named by 12 bytes: its slot in the alias's file of holders, and a nonce
that it wrote into the slot's record when it claimed the slot. It is alive if another process holds
the slot and the nonce is still there, or if slot and nonce are this process's own. Slots are
reused, nonces never are: a living holder never has the name of a dead one.

A process locks the slot, then writes the nonce, then creates its first lease. So a name found in a
store was written here before, and stays until another process claims the slot, which requires the
holder's death. Between the lock and the nonce of a new claim, the nonce of the dead holder is in a
slot that is held: a check in that moment returns "alive" once more, and the next one corrects it.

The file is reopened when another one is at its path, as databases are. Removing or replacing it
alone, without the store beside it, makes all holders look dead.
"""

import os
import secrets
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.slot_file import (
    SlotFile,
    close_if_unlinked,
    identity_of,
    open_slot_file,
)
from cacheapp.errors import StoreUnavailable

HOLDER_BYTES = 12
UNKNOWN = bytes(HOLDER_BYTES)
"""The name of a process without a slot. It counts as alive; its leases end by their deadline."""

_NONCE_BYTES = 8
_SLOTS = 4096  # processes at a time
_NAME = struct.Struct(f">I{_NONCE_BYTES}s")


class _OwnNames:
    """The name of this process in each file. `lock` guards them, and the slots in these files.

    Reentrant: a signal handler may use the cache while its thread holds the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.by_file: dict[SlotFile, bytes] = {}


_own_names = _OwnNames()
os.register_at_fork(after_in_child=_own_names.__init__)  # type: ignore[misc]  # a child has no slot yet


class HolderRegistry:
    """The holders of one alias. `prepare` creates or checks the directory of their file.

    `_own_names.lock` guards `_file`. No other lock of the cache is acquired under it.
    """

    def __init__(self, path: Path, prepare: Callable[[], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._file: SlotFile | None = None

    def own_name(self) -> bytes:
        """Return the name of this process; raise `StoreUnavailable` if no slot is available."""
        with _own_names.lock:
            try:
                file = self._current_file()
                return _own_names.by_file.get(file) or self._claim_name(file)
            except OSError as exc:
                if is_interruption(exc):
                    raise
                raise StoreUnavailable(f"{self._path}: {exc.strerror}; nothing was done") from exc

    def own_name_or_unknown(self) -> bytes:
        """Return the name of this process, or `UNKNOWN` without a slot."""
        try:
            return self.own_name()
        except StoreUnavailable:
            return UNKNOWN

    def _claim_name(self, file: SlotFile) -> bytes:
        slot = file.claim()
        if slot is None:
            raise StoreUnavailable(
                f"{self._path}: all {_SLOTS} slots are held by living processes; nothing was done"
            )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        os.pwrite(file.descriptor, nonce, slot * _NONCE_BYTES)
        name = _own_names.by_file[file] = _NAME.pack(slot, nonce)
        return name

    def is_alive(self, holder: bytes) -> bool:
        """Return False only if the holder is known to be dead."""
        if holder == UNKNOWN:
            return True
        slot, nonce = _NAME.unpack(holder)
        with _own_names.lock:
            try:
                file = self._current_file()
                if slot == file.slot:
                    return _own_names.by_file.get(file) == holder
                found = os.pread(file.descriptor, _NONCE_BYTES, slot * _NONCE_BYTES)
                return found == nonce and file.is_locked_elsewhere(slot)
            except (OSError, StoreUnavailable) as exc:
                if is_interruption(exc):
                    raise
                return True  # then only its deadline ends a lease

    def _current_file(self) -> SlotFile:
        """Return the file that is at the path now."""
        file = self._file
        found = identity_of(self._path)
        # If another registry closed it, a new file may have the same device and inode.
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
            _own_names.by_file.pop(file, None)
        return self._file
