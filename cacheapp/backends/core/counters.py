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
- A file is created by the first addition, not with the cache: Django's checks build every cache, and
  `manage.py check` may run as root, whose files the workers could not use.
"""

import array
import logging
import mmap
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeAlias

from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.reservation import reserve
from cacheapp.backends.local.slot_file import SlotFile, identity_of, open_slot_file
from cacheapp.errors import StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

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
COPY_NAMES = (
    "copy_hits",
    "copy_absent",
    "copy_unproved",
    "copy_excluded",
    "copy_fills",
    "copy_voided_fills",
    "copy_invalidations",
)
REMOVED_NAMES = ("evictions", "expirations")
NAMES = (*COMMON_NAMES, *COPY_NAMES, *REMOVED_NAMES)
"""The counters of a cache, in the order of a row.

`COPY_NAMES` are of a cache with a copy on this machine, `REMOVED_NAMES` of one whose store does not
count what it removes.
"""
COPY_HITS, COPY_ABSENT, COPY_UNPROVED, COPY_EXCLUDED = range(15, 19)
COPY_FILLS, COPY_VOIDED_FILLS, COPY_INVALIDATIONS = range(19, 22)
EVICTIONS, EXPIRATIONS = range(22, 24)
_GAUGES = frozenset({BREAKER_OPEN_NOW})  # the state of a live process, not a sum over time

_ROW = 32  # numbers in a row, or a multiple of it: with space for counters of later versions
_ROWS = 512  # processes at a time
_lost_mappings: list[object] = []


class _UnopenedRow:
    """What `row` is until something is counted: an addition opens the file first.

    `row[n] += amount` reads, adds and stores; it reads 0, so what it stores is the amount. That
    counts also if another thread has opened the file meanwhile.
    """

    __slots__ = ("_opened",)

    def __init__(self, opened: "Callable[[], _Row]") -> None:
        self._opened = opened

    def __getitem__(self, index: int) -> int:
        return 0

    def __setitem__(self, index: int, amount: int) -> None:
        self._opened()[index] += amount


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
        self.row: _Row | _UnopenedRow = _UnopenedRow(self._opened)
        """This process's row. The most frequent callers add to it directly."""
        self._found = [0] * self._length
        """The row's numbers when this process claimed it, which its last process counted."""
        self._numbers: memoryview[int] | None = None
        self._index: int | None = None  # of our row; without one, count in private memory
        self._file: SlotFile | None = None

    def _opened(self) -> _Row:
        """Return this process's row in the file, which is created if needed.

        Without a lock, for which a signal handler would wait: threads that open it together claim
        one slot, and the first one sets the row.
        """
        while isinstance(row := self.row, _UnopenedRow):
            self._open()
        return row

    def _open(self) -> None:
        try:
            self._forget_lost()
            file, numbers = self._file, self._numbers
            if file is None or numbers is None:
                file, numbers = self._file, self._numbers = self._map()
        except (OSError, StoreUnavailable) as exc:
            if is_interruption(exc):
                raise
            logger.warning("counting for this process only: %s", exc)
            self._set_row(None, array.array("Q", bytes(self._length * 8)))
        else:
            self._claim(file, numbers)

    def _forget_lost(self) -> bool:
        """Forget the file if other code has closed it: another process may claim our row.

        Returns True if it did.
        """
        if self._file is None or self._file.is_intact():
            return False
        # Python's mmap has a descriptor of its own, which may be of another file too. So the old
        # mapping must never be freed.
        _lost_mappings.append(self._numbers)
        self._numbers = self._file = None
        return True

    def _forget_row(self) -> None:
        """Claim another row at the next addition."""
        self._index, self.row = None, _UnopenedRow(self._opened)

    def _map(self) -> "tuple[SlotFile, memoryview[int]]":
        private_directory(self._path.parent)
        file = open_slot_file(self._path, _ROWS)
        number = file.descriptor
        # Reserve the space: if it were missing later, a store to it would raise SIGBUS.
        length = self._length * _ROWS * 8
        reserve(number, length)
        return file, memoryview(mmap.mmap(number, length)).cast("B").cast("Q")

    def _claim(self, file: SlotFile, numbers: "memoryview[int]") -> None:
        index = file.claim()
        if index is None:
            logger.warning(
                "%s: all %d rows are in use; counting for this process only", self._path, _ROWS
            )
            self._set_row(None, array.array("Q", bytes(self._length * 8)))
        elif isinstance(self.row, _UnopenedRow):
            row = numbers[index * self._length : (index + 1) * self._length]
            for gauge in self._gauges:
                row[gauge] = 0
            self._set_row(index, row)

    def _set_row(self, index: int | None, row: _Row) -> None:
        found = list(row)
        if isinstance(self.row, _UnopenedRow):  # else another thread or a handler has set it
            self._index, self._found, self.row = index, found, row

    def add(self, name: int, amount: int = 1) -> None:
        """Add to the counter with this index in the names."""
        if not forks.mark[0]:
            forks.recover()
        self.row[name] += amount

    def set_gauge(self, name: int, value: int) -> None:
        """Set a gauge of this process."""
        self._opened()[name] = value

    def own(self) -> dict[str, int]:
        """Return the counts of this process, by name."""
        row = self.row
        if isinstance(row, _UnopenedRow):
            return dict.fromkeys(self._names, 0)
        numbers = (now - found for now, found in zip(row, self._found, strict=True))
        return dict(zip(self._names, numbers, strict=False))

    def totals(self) -> dict[str, int]:
        """Return the sums over all processes on this machine, including dead ones, by name."""
        with suppress_failure(OSError):
            if isinstance(self.row, _UnopenedRow) and identity_of(self._path) is None:
                return dict.fromkeys(self._names, 0)  # nothing was counted, and nothing is created
        if self._forget_lost():
            self._forget_row()
        own = dict(zip(self._names, self._opened(), strict=False))
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
        self._forget_lost()
        self._forget_row()


class _CountersByPath:
    """One `Counters` per path and process: two would share the process's lock on a row."""

    def __init__(self) -> None:
        # Reentrant: a signal handler that builds the same counters inside `counters` is the first.
        self._lock = reentrant_lock()
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
        self._lock = reentrant_lock()
        for counters in self._by_path.values():
            counters.after_fork_in_child()


_by_path = _CountersByPath()
counters = _by_path.counters
forks.register(in_child=_by_path.after_fork_in_child)
