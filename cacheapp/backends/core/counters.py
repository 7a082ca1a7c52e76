"""Counts what caches do, over all processes of the host, without a cache write per read.

A file per alias holds a row of 64-bit numbers for each process; a process adds to its own row in
memory, and anybody sums all rows. Invariants:

- One process at a time writes to a row. It holds by the row being a slot (see `slots`), which is free
  once its process has ended. Whoever claims the row of a dead process counts on from where that one
  stopped, so that no sum ever falls.
- No two threads add at the same moment, nor a signal handler within an addition. It holds without a
  lock, which would cost more than all the rest: since 3.10 CPython lets another thread or a handler in
  at the end of a call or a loop only, and there is neither between the two halves of `row[n] += 1`. (A
  build without the global lock would need one here.)
- An addition is one store of eight bytes: a kill leaves the old number or the new one.
"""

import array
import logging
import mmap
import os
import threading
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeAlias

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import SlotFile, open_slot_file
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

NAMES = (
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
_GAUGES = frozenset({BREAKER_OPEN_NOW})  # a state of a living process, not a sum over time

_ROW = 32  # numbers in a row: room for what later versions count
_ROWS = 512  # processes at a time
_BYTES = _ROW * _ROWS * 8
_Row: TypeAlias = "array.array[int] | memoryview[int]"


class Counters:
    """The counters of one file; `counters` shares instances. `row` is replaced whole by a fork."""

    def __init__(
        self, path: Path, names: Sequence[str] = NAMES, gauges: AbstractSet[int] = _GAUGES
    ) -> None:
        self._path = path
        self._names = names
        self._gauges = gauges
        self.row: _Row = array.array("Q", bytes(_ROW * 8))
        """That of this process; what is called most adds to it by itself."""
        self._found = [0] * _ROW
        """What the row held when we claimed it: counted by its last process."""
        self._numbers: memoryview[int] | None = None
        self._index: int | None = None  # of our row; without one we count in memory of our own
        self._file: SlotFile | None = None
        try:
            self._numbers = self._map()
        except (OSError, StoreUnavailable) as exc:
            logger.warning("counting for this process alone: %s", exc)
        else:
            self._claim()

    def _map(self) -> "memoryview[int]":
        private_directory(self._path.parent)
        self._file = open_slot_file(self._path, _ROWS)
        number = self._file.descriptor
        # Room that is reserved now cannot be missing later, when a store to it would be a SIGBUS.
        os.posix_fallocate(number, 0, _BYTES)
        return memoryview(mmap.mmap(number, _BYTES)).cast("B").cast("Q")

    def _claim(self) -> None:
        if self._numbers is None or self._file is None:
            return
        index = self._index = self._file.claim()
        if index is None:
            logger.warning(
                "%s: all %d rows are taken; counting for this process alone", self._path, _ROWS
            )
            self.row = array.array("Q", bytes(_ROW * 8))
            self._found = [0] * _ROW
            return
        self.row = self._numbers[index * _ROW : (index + 1) * _ROW]
        for gauge in self._gauges:
            self.row[gauge] = 0
        self._found = list(self.row)

    def add(self, name: int, amount: int = 1) -> None:
        """Add to the counter with that place in the names."""
        self.row[name] += amount

    def set_gauge(self, name: int, value: int) -> None:
        """Set a gauge of this process."""
        self.row[name] = value

    def own(self) -> dict[str, int]:
        """Return what this process counted itself, for each name."""
        numbers = (now - found for now, found in zip(self.row, self._found, strict=True))
        return dict(zip(self._names, numbers, strict=False))

    def totals(self) -> dict[str, int]:
        """Return the sum over all processes of the host, dead ones included, for each name."""
        own = dict(zip(self._names, self.row, strict=False))
        if self._numbers is None:
            return own
        numbers = self._numbers
        self._lower_gauges_of_the_dead(numbers)
        totals = {name: sum(numbers[index::_ROW]) for index, name in enumerate(self._names)}
        if self._index is None:  # without a row in the file
            return {name: own[name] + total for name, total in totals.items()}
        return totals

    def _lower_gauges_of_the_dead(self, numbers: "memoryview[int]") -> None:
        """Zero the gauges in rows that nobody holds. Holding the row meanwhile, nobody claims it."""
        assert self._file is not None  # noqa: S101 (for the type checker)
        for index in range(_ROWS):
            row = numbers[index * _ROW : (index + 1) * _ROW]
            if index == self._index or not any(row[gauge] for gauge in self._gauges):
                continue
            if self._file.try_lock(index):  # else a living process has it: its gauge counts
                for gauge in self._gauges:
                    row[gauge] = 0
                self._file.unlock(index)

    def after_fork_in_child(self) -> None:
        """Claim a row of our own; the inherited one is the parent's."""
        self._claim()


class _Shared:
    """One `Counters` per path and process: two would take each other's lock for their own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may use a cache in here
        self._by_path: dict[Path, Counters] = {}

    def counters(
        self, path: Path, names: Sequence[str] = NAMES, gauges: AbstractSet[int] = _GAUGES
    ) -> Counters:
        """Return this process's counters for the file, which is always asked for by the same names."""
        with self._lock:
            if path not in self._by_path:
                self._by_path[path] = Counters(path, names, gauges)
            return self._by_path[path]

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        for counters in self._by_path.values():
            counters.after_fork_in_child()


_shared = _Shared()
counters = _shared.counters
os.register_at_fork(after_in_child=_shared.after_fork_in_child)
