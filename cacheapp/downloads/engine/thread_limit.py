"""The host's threads for downloads, shared by all its processes: each thread takes a seat, or is none.

Invariant: at most as many threads fetch on this host as there are seats. A seat is a locked byte of a
file in `STATE_DIR` (`backends.slots`): the kernel frees it however its process ends. Another byte is
held, shared, by processes that have work and no seat at all: then the last free seat is theirs, and
where none is free, whoever has more than one gives one up, so that no process's jobs wait for ever.
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

_STARVING = 0  # the byte; seats are those after it
_LOOK_AGAIN_S = 0.2
_GIVE_UP_EVERY_S = 1.0


class ThreadLimit:
    """The seats of this process. `_lock` guards all mutable fields; get it from `thread_limit`.

    Where the file cannot be had, threads are counted for this process alone.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self._full_until_s = 0.0
        self._look_at_s = 0.0
        self._starving = False
        self._file: SlotFile | None = None
        try:
            private_directory(path.parent)
            self._file = open_slot_file(path, count + 1)
        except (OSError, StoreUnavailable) as exc:
            logger.warning("threads are counted for this process alone: %s", exc)

    def acquire(self) -> bool:
        """Take a seat; return whether there was one."""
        with self._lock:
            if clock.monotonic_s() < self._full_until_s:
                return False
            index = self._acquire_free()
            if index is not None and self._held and self._is_another_starving():
                second = self._acquire_free(index)
                self._release(index if second is None else second)
                index = None if second is None else index
            if index is None:
                self._full_until_s = clock.monotonic_s() + _LOOK_AGAIN_S
                return False
            self._held.add(index)
            return True

    def release(self) -> None:
        """Free a seat."""
        with self._lock:
            index = self._held.pop()
            self._full_until_s = 0.0
            self._release(index)

    def set_starving(self, *, starving: bool) -> None:
        """Say whether this process has work and no seat."""
        with self._lock:
            if self._file is None or starving == self._starving:
                return
            kind = fcntl.LOCK_SH | fcntl.LOCK_NB if starving else fcntl.LOCK_UN
            with contextlib.suppress(OSError):  # whoever looks at it has it locked: the next time
                fcntl.lockf(self._file.descriptor, kind, 1, _STARVING)
                self._starving = starving

    def should_yield(self) -> bool:
        """Return whether another process needs a seat of ours; true at most once a second."""
        with self._lock:
            now_s = clock.monotonic_s()
            if now_s < self._look_at_s or len(self._held) < 2:  # noqa: PLR2004 (the last one stays)
                return False
            self._look_at_s = now_s + _LOOK_AGAIN_S
            if not self._is_another_starving():
                return False
            free = self._acquire_free()
            if free is not None:
                self._release(free)
                return False
            self._look_at_s = now_s + _GIVE_UP_EVERY_S
            return True

    def _is_another_starving(self) -> bool:
        return self._file is not None and self._file.is_locked_elsewhere(_STARVING)

    def _acquire_free(self, but: int | None = None) -> int | None:
        """Hold a free seat and return it, if there is one; under the lock."""
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
    """Return this process's seats: one object, for the kernel does not tell its threads apart."""
    with _lock:
        found = _by_file.get((path, count))
        if found is None:
            found = _by_file[path, count] = ThreadLimit(path, count)
        return found


def _forget() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _by_file.clear()  # a child holds none of its parent's locks


os.register_at_fork(after_in_child=_forget)
