"""Limits the download threads of all processes on this machine together.

Each thread holds one slot: a locked byte of a file in `STATE_DIR` (`local.slot_file`). The kernel
unlocks it however the process ends. Invariant: no more threads fetch on this machine than there are
slots. One further byte is locked, shared, by processes that have work and no slot. While it is
locked, the last free slot is left to them, and if none is free, a process with more than one slot
releases one. So no process waits for ever.
"""

import contextlib
import fcntl
import logging
import os
import threading
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import SlotFile, open_slot_file
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_STARVING = 0  # the index of the shared byte; the slots are those after it
_RETRY_S = 0.2
_YIELD_EVERY_S = 1.0


class ThreadLimit:
    """The slots of this process. `_lock` guards all mutable fields. Create it with `thread_limit`.

    If the file is unavailable, only the threads of this process are counted.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self._full_until_s = 0.0
        self._check_at_s = 0.0
        self._starving = False
        self._file: SlotFile | None = None
        try:
            private_directory(path.parent)
            self._file = open_slot_file(path, count + 1)
        except (OSError, StoreUnavailable) as exc:
            logger.warning(
                "no machine-wide limit of download threads, only one per process: %s", exc
            )

    def acquire(self) -> bool:
        """Acquire a slot; return whether one was free."""
        with self._lock:
            if clock.monotonic_s() < self._full_until_s:
                return False
            index = self._acquire_free()
            if index is not None and self._held and self._is_another_starving():
                second = self._acquire_free(index)
                self._release(index if second is None else second)
                index = None if second is None else index
            if index is None:
                self._full_until_s = clock.monotonic_s() + _RETRY_S
                return False
            self._held.add(index)
            return True

    def release(self) -> None:
        """Release a slot."""
        with self._lock:
            index = self._held.pop()
            self._full_until_s = 0.0
            self._release(index)

    def set_starving(self, *, starving: bool) -> None:
        """Record whether this process has work but no slot."""
        with self._lock:
            if self._file is None or starving == self._starving:
                return
            kind = fcntl.LOCK_SH | fcntl.LOCK_NB if starving else fcntl.LOCK_UN
            # On failure another process is testing the byte: the next call tries again.
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file.descriptor, kind, 1, _STARVING)
                self._starving = starving

    def should_yield(self) -> bool:
        """Return whether to release a slot for another process; true at most once a second."""
        with self._lock:
            now_s = clock.monotonic_s()
            if now_s < self._check_at_s or len(self._held) < 2:  # noqa: PLR2004 (keep the last)
                return False
            self._check_at_s = now_s + _RETRY_S
            if not self._is_another_starving():
                return False
            free = self._acquire_free()
            if free is not None:
                self._release(free)
                return False
            self._check_at_s = now_s + _YIELD_EVERY_S
            return True

    def _is_another_starving(self) -> bool:
        return self._file is not None and self._file.is_locked_elsewhere(_STARVING)

    def _acquire_free(self, but: int | None = None) -> int | None:
        """Lock a free slot and return its index, or `None`. The caller holds `_lock`."""
        for index in range(1, self.count + 1):
            if index in self._held or index == but:
                continue
            if self._file is None or self._file.try_lock(index):
                return index
        return None

    def _release(self, index: int) -> None:
        if self._file is not None:
            self._file.unlock(index)


_lock = threading.Lock()  # guards _by_file
_by_file: dict[tuple[Path, int], ThreadLimit] = {}


def thread_limit(path: Path, count: int) -> ThreadLimit:
    """Return this process's limit: one object, as the kernel's locks belong to the process."""
    with _lock:
        found = _by_file.get((path, count))
        if found is None:
            found = _by_file[path, count] = ThreadLimit(path, count)
        return found


def _forget() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _by_file.clear()  # a child process inherits no record locks


os.register_at_fork(after_in_child=_forget)
