"""How `LMDBStore` writes: one transaction, and what is done where that finds no room."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lmdb

from cacheapp.backends.core.log_throttle import Quiet
from cacheapp.backends.lmdb import entries, eviction
from cacheapp.backends.lmdb.reads import Reads
from cacheapp.errors import StoreFull

logger = logging.getLogger(__name__)
_no_room = Quiet()
_DOUBLINGS = 5
_LEAST_WANTED = 64 * 1024
_PAUSES_S = [0.0, *(0.001 * 2**step for step in range(8))]  # a quarter of a second together
ResultT = TypeVar("ResultT")


class Writes(Reads):
    """Ways to write, by whether a write needs new pages."""

    def _stored(self, length: int, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Do a write that may need new pages; raise `StoreFull` if room cannot be made for it."""
        if length <= self.environment.limits.max_entry_bytes:
            for attempt, pause_s in enumerate(_PAUSES_S):
                try:
                    return self._changed_by(work, *args, growing=True)
                except lmdb.MapFullError:  # no run of free pages is long enough
                    wanted = max(_LEAST_WANTED, 2 * length) << min(attempt, _DOUBLINGS)
                    self._changed_by(eviction.make_room, wanted)
                time.sleep(pause_s)  # a reader may keep them that waits for its turn of a processor
        raise StoreFull(
            f"{self.environment.directory.path}: no room for {length} bytes; nothing was stored"
        )

    def _changed_by(
        self, work: Callable[..., ResultT], *args: Any, growing: bool = False
    ) -> ResultT:
        """Do a write that must find the few pages that any write needs.

        One that is `growing` may raise `lmdb.MapFullError`: there are pages, but not for this.

        If they are missing, some reader is in the middle of a look and keeps all pages of its
        moment. Mostly it only waits for its turn of a processor. If it stands still for long, the
        environment is given up for an empty one: an entry that has to go must not stay.
        """
        for pause_s in _PAUSES_S:
            try:
                return self.environment.write(work, *args)
            except lmdb.MapFullError:
                if self._has_pages() and growing:
                    raise
            time.sleep(pause_s)
        if self.environment.give_up():
            logger.warning(
                "%s: a process that stands still in the middle of a read keeps all pages; the "
                "cache was emptied",
                self.environment.directory.path,
                extra={"event": "cache_emptied"},
            )
        return self.environment.write(work, *args)

    def _has_pages(self) -> bool:
        """Return whether a write of next to nothing finds pages."""
        try:
            self.environment.write(eviction.probe)
        except lmdb.MapFullError:
            return False
        return True

    def _turned_away(self, names: Sequence[bytes], length: int) -> None:
        """Leave no older value where a new one found no room."""
        self._changed_by(entries.turn_away, names)
        withheld = _no_room.due()
        if withheld is not None:
            logger.warning(
                "%s: no room for %d bytes, so they were not stored; %d more since the last such "
                "line",
                self.environment.directory.path,
                length,
                withheld,
                extra={"event": "cache_no_room"},
            )
