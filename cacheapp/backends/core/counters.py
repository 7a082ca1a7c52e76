"""Counts cache operations across all processes on this machine, without a write per read.

A file per alias contains a row of 64-bit numbers for each process. A process adds to its own row in
memory; any process can sum all rows. Invariants:

- One process at a time writes to a row. The row is a slot (see `local/slot_file.py`), which becomes
  free when its process ends. The next process that claims it continues from the numbers it finds, so
  no sum ever decreases.
- No two threads add at the same moment, and no signal handler adds during an addition. This needs no
  lock, which would cost more than everything else: since 3.10, CPython switches to another thread or
  a handler only at the end of a call or a loop, and neither occurs within `row[n] += 1`. (A
  free-threaded build would need a lock here.)
- An addition is one store of eight bytes: a kill leaves either the old number or the new one.
"""

import array
import logging
import mmap
import threading
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeAlias

from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.reservation import reserve
from cacheapp.backends.local.slot_file import SlotFile, open_slot_file
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

COMMON_NAMES = (
    "hits",
    "misses",
    "sets",
    "deletes",
    "values_rejected",
    "errors_raised",
    "errors_swallowed",
    "breaker_opened",
    "breaker_open_now",
    "factory_runs",
    "factory_errors",
    "factory_us",
    "lease_waits",
    "stale_hits",
    "voided_fills",
)
HITS, MISSES, SETS, DELETES, VALUES_REJECTED = range(5)
ERRORS_RAISED, ERRORS_SWALLOWED, BREAKER_OPENED, BREAKER_OPEN_NOW = range(5, 9)
FACTORY_RUNS, FACTORY_ERRORS, FACTORY_US, LEASE_WAITS, STALE_HITS, VOIDED_FILLS = range(9, 15)
NAMES = (
    *COMMON_NAMES,
    "copy_hits",
    "copy_absent",
    "copy_unproved",
    "copy_excluded",
    "copy_fills",
    "copy_voided_fills",
    "copy_invalidations",
)
"""The counters of a cache. Those after `COMMON_NAMES` are of a cache with a copy on this machine."""
COPY_HITS, COPY_ABSENT, COPY_UNPROVED, COPY_EXCLUDED = range(15, 19)
COPY_FILLS, COPY_VOIDED_FILLS, COPY_INVALIDATIONS = range(19, 22)
_GAUGES = frozenset({BREAKER_OPEN_NOW})  # the state of a live process, not a sum over time

_ROW = 32  # numbers in a row, or a multiple of it: with space for counters of later versions
_ROWS = 512  # processes at a time
_lost_mappings: list[object] = []
_Row: TypeAlias = "array.array[int] | memoryview[int]"


class Counters:
    """The counters of one file; `counters()` shares instances. A fork replaces `row`."""

    def __init__(
        self, path: Path, names: Sequence[str] = NAMES, gauges: AbstractSet[int] = _GAUGES
    ) -> None:
        self._path = path
        self._names = names
        self._gauges = gauges
        self._length = -(-len(names) // _ROW) * _ROW
        self.row: _Row = array.array("Q", bytes(self._length * 8))
        """This process's row. The most frequent callers add to it directly."""
        self._found = [0] * self._length
        """The row's numbers when this process claimed it, which its last process counted."""
        self._numbers: memoryview[int] | None = None
        self._index: int | None = None  # of our row; without one, count in private memory
        self._file: SlotFile | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._numbers = self._map()
        except (OSError, StoreUnavailable) as exc:
            if is_interruption(exc):
                raise
            logger.warning("counting for this process only: %s", exc)
        else:
            self._claim()

    def check(self) -> bool:
        """Claim a new row if other code has closed the file: another process may claim ours.

        Returns True if it did.
        """
        if self._file is None or self._file.is_intact():
            return False
        # Python's mmap has a descriptor of its own, which may be of another file too. So the old
        # mapping must never be freed.
        _lost_mappings.append(self._numbers)
        self._open()
        return True

    def _map(self) -> "memoryview[int]":
        private_directory(self._path.parent)
        self._file = open_slot_file(self._path, _ROWS)
        number = self._file.descriptor
        # Reserve the space: if it were missing later, a store to it would raise SIGBUS.
        length = self._length * _ROWS * 8
        reserve(number, length)
        return memoryview(mmap.mmap(number, length)).cast("B").cast("Q")

    def _claim(self) -> None:
        if self._numbers is None or self._file is None:
            return
        index = self._index = self._file.claim()
        if index is None:
            logger.warning(
                "%s: all %d rows are in use; counting for this process only", self._path, _ROWS
            )
            self.row = array.array("Q", bytes(self._length * 8))
            self._found = [0] * self._length
            return
        self.row = self._numbers[index * self._length : (index + 1) * self._length]
        for gauge in self._gauges:
            self.row[gauge] = 0
        self._found = list(self.row)

    def add(self, name: int, amount: int = 1) -> None:
        """Add to the counter with this index in the names."""
        if not forks.mark[0]:
            forks.recover()
        self.row[name] += amount

    def set_gauge(self, name: int, value: int) -> None:
        """Set a gauge of this process."""
        self.row[name] = value

    def own(self) -> dict[str, int]:
        """Return the counts of this process, by name."""
        numbers = (now - found for now, found in zip(self.row, self._found, strict=True))
        return dict(zip(self._names, numbers, strict=False))

    def totals(self) -> dict[str, int]:
        """Return the sums over all processes on this machine, including dead ones, by name."""
        self.check()
        own = dict(zip(self._names, self.row, strict=False))
        if self._numbers is None:
            return own
        numbers = self._numbers
        self._reset_gauges_of_dead_processes(numbers)
        totals = {
            name: sum(numbers[index :: self._length]) for index, name in enumerate(self._names)
        }
        if self._index is None:  # without a row in the file
            return {name: own[name] + total for name, total in totals.items()}
        return totals

    def _reset_gauges_of_dead_processes(self, numbers: "memoryview[int]") -> None:
        """Set gauges in free rows to 0. The row is locked for it, so no process can claim it."""
        assert self._file is not None  # noqa: S101 (for the type checker)
        for index in range(_ROWS):
            row = numbers[index * self._length : (index + 1) * self._length]
            if index == self._index or not any(row[gauge] for gauge in self._gauges):
                continue
            if self._file.try_lock(index):  # else a live process has it, and its gauge counts
                for gauge in self._gauges:
                    row[gauge] = 0
                self._file.unlock(index)

    def after_fork_in_child(self) -> None:
        """Claim a new row: the inherited one is the parent's."""
        if not self.check():
            self._claim()


class _CountersByPath:
    """One `Counters` per path and process: two would share the process's lock on a row."""

    def __init__(self) -> None:
        # Reentrant: a signal handler that builds the same counters inside `counters` is the first.
        self._lock = threading.RLock()
        self._by_path: dict[Path, Counters] = {}

    def counters(
        self, path: Path, names: Sequence[str] = NAMES, gauges: AbstractSet[int] = _GAUGES
    ) -> Counters:
        """Return this process's counters for the file. Use the same names in all calls."""
        if not forks.mark[0]:
            forks.recover()
        with self._lock:
            found = self._by_path.get(path)
            return found or self._by_path.setdefault(path, Counters(path, names, gauges))

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        for counters in self._by_path.values():
            counters.after_fork_in_child()


_by_path = _CountersByPath()
counters = _by_path.counters
forks.register(in_child=_by_path.after_fork_in_child)
