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
from collections.abc import Callable
from pathlib import Path

from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.slot_file import (
    SlotFile,
    close_if_unlinked,
    identity_of,
    open_slot_file,
)
from cacheapp.errors import StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

HOLDER_BYTES = 12
UNKNOWN = bytes(HOLDER_BYTES)
"""The name of a process without a slot. It counts as alive; its leases end by their deadline."""

_NONCE_BYTES = 8
_SLOTS = 4096  # processes at a time
_NAME = struct.Struct(f">I{_NONCE_BYTES}s")


class _OwnNames:
    """The name of this process in each file. A forked child has none yet, and a new lock.

    `lock` lets one thread at a time open a file or claim a name. It is reentrant: a signal handler
    that does so inside it gets the same `chosen` name, and writes the same nonce. A name is in
    `by_file` once its nonce is written; that and all checks need no lock.
    """

    def __init__(self) -> None:
        self.lock = reentrant_lock()
        self.chosen: dict[SlotFile, bytes] = {}
        self.by_file: dict[SlotFile, bytes] = {}

    def forget(self, file: SlotFile) -> None:
        self.chosen.pop(file, None)
        self.by_file.pop(file, None)


_own_names = _OwnNames()
forks.register(in_child=_own_names.__init__)  # type: ignore[misc]


class HolderRegistry:
    """The holders of one alias. `prepare` creates or checks the directory of their file.

    `_own_names.lock` guards changes of `_file`. No other lock of the cache is acquired under it.
    """

    def __init__(self, path: Path, prepare: Callable[[], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._file: SlotFile | None = None

    def own_name(self) -> bytes:
        """Return the name of this process; raise `StoreUnavailable` if no slot is available."""
        if not forks.mark[0]:
            forks.recover()
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
        with _own_names.lock:
            slot = file.claim()
            if slot is None:
                raise StoreUnavailable(
                    f"{self._path}: all {_SLOTS} slots are held by living processes; "
                    "nothing was done"
                )
            new = _NAME.pack(slot, secrets.token_bytes(_NONCE_BYTES))
            name = _own_names.chosen.setdefault(file, new)
            os.pwrite(file.descriptor, _NAME.unpack(name)[1], slot * _NONCE_BYTES)
            _own_names.by_file[file] = name
            return name

    def is_alive(self, holder: bytes) -> bool:
        """Return False only if the holder is known to be dead."""
        if holder == UNKNOWN:
            return True
        if not forks.mark[0]:
            forks.recover()
        slot, nonce = _NAME.unpack(holder)
        try:
            file = self._current_file()
            if slot == file.slot:
                return _own_names.by_file.get(file) == holder
            found = os.pread(file.descriptor, _NONCE_BYTES, slot * _NONCE_BYTES)
            alive = found == nonce and file.is_locked_elsewhere(slot)
        except (OSError, StoreUnavailable) as exc:
            if is_interruption(exc):
                raise
            return True  # then only its deadline ends a lease
        # If another thread has closed the file during this, nothing is known.
        return alive or not file.is_intact()

    def _current_file(self) -> SlotFile:
        """Return the file that is at the path now, with its descriptor checked."""
        file = self._file
        if file is not None and file.identity == identity_of(self._path) and file.is_intact():
            return file
        with _own_names.lock:
            return self._reopened(file)

    def _reopened(self, file: SlotFile | None) -> SlotFile:
        if identity_of(self._path) is None:
            self._prepare()
        self._file = current = open_slot_file(self._path, _SLOTS)
        if file is not None and (
            file.descriptor < 0 or (file is not current and close_if_unlinked(file))
        ):
            _own_names.forget(file)
        return current
