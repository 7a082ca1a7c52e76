"""Retry a write that found the map full: evict, wait for readers, or discard all entries."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lmdb

from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.lmdb import entries, eviction
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.errors import StoreFull

logger = logging.getLogger(__name__)
_rejections = LogThrottle()
_MAX_DOUBLINGS = 5
_MIN_FREED_BYTES = 64 * 1024
_MAX_EVICTIONS = 64
_PAUSES_S = [0.0, *(0.001 * 2**step for step in range(8))]  # a quarter of a second in total
ResultT = TypeVar("ResultT")


class WriteRetry:
    """The writes of one environment, by whether they need new pages."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def grow(self, length: int, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Run a write that may need new pages; raise `StoreFull` if no space can be freed for it."""
        if length <= self._environment.max_entry_bytes:
            for attempt, pause_s in enumerate(_PAUSES_S):
                try:
                    return self._run(work, *args, growing=True)
                except lmdb.MapFullError:  # no run of free pages is long enough
                    self._evict(max(_MIN_FREED_BYTES, 2 * length) << min(attempt, _MAX_DOUBLINGS))
                time.sleep(pause_s)  # a reader that waits for a processor may retain free pages
        raise StoreFull(
            f"{self._environment.directory.path}: no space for {length} bytes, even after "
            "eviction; nothing was stored"
        )

    def _evict(self, wanted_bytes: int) -> None:
        """Evict until so many bytes are free, or many small entries are gone.

        By transactions of a few entries each: one of many would need more free pages than there are.
        """
        for _ in range(min(1 + wanted_bytes // _MIN_FREED_BYTES, _MAX_EVICTIONS)):
            self._run(eviction.free_space, wanted_bytes)

    def grow_once(self, length: int, work: Callable[..., ResultT], item: Any) -> ResultT:
        """Do as `grow` with one argument, at half of its cost while there is space."""
        try:
            return self._environment.transact(work, item)
        except lmdb.MapFullError:
            return self.grow(length, work, item)

    def shrink_once(self, work: Callable[..., ResultT], item: Any) -> ResultT:
        """Do as `shrink` with one argument, at half of its cost while there is space."""
        try:
            return self._environment.transact(work, item)
        except lmdb.MapFullError:
            return self.shrink(work, item)

    def shrink(self, work: Callable[..., ResultT], *args: Any) -> ResultT:
        """Run a write that removes entries, and needs only the few pages that any write needs."""
        return self._run(work, *args)

    def _run(self, work: Callable[..., ResultT], *args: Any, growing: bool = False) -> ResultT:
        """Run a write until it finds the few pages that any write needs.

        If it is `growing`, it may raise `lmdb.MapFullError`: there are pages, but too few for it.

        If there are no pages at all, a reader is inside a transaction and retains all pages of its
        snapshot. Usually it only waits for a processor. If it is stopped for long, the environment
        is replaced by an empty one, because an entry that must be removed must not stay.
        """
        for pause_s in _PAUSES_S:
            try:
                return self._environment.write(work, *args)
            except lmdb.MapFullError:
                if self._has_pages() and growing:
                    raise
            time.sleep(pause_s)
        if self._environment.discard_all():
            logger.warning(
                "%s: a process that is stopped inside a read retains all pages; the cache was "
                "emptied",
                self._environment.directory.path,
                extra={"event": "cache_emptied"},
            )
        return self._environment.write(work, *args)

    def _has_pages(self) -> bool:
        """Return True if a minimal write finds pages."""
        try:
            self._environment.write(eviction.probe)
        except lmdb.MapFullError:
            return False
        return True

    def reject(self, names: Sequence[bytes], length: int) -> None:
        """Remove the older values of names, as there is no space for the new ones."""
        self.shrink(entries.delete_rejected, names)
        withheld = _rejections.due()
        if withheld is not None:
            logger.warning(
                "%s: no space for %d bytes, which were not stored (%d more since the last such "
                "line)",
                self._environment.directory.path,
                length,
                withheld,
                extra={"event": "cache_full"},
            )
