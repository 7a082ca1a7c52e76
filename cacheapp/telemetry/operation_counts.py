"""Counts operations by name, duration and error, across all processes of this machine.

A subscriber that adds to a row of numbers in shared memory (`backends/core/counters.py`), so that any
process can read the sum, which never decreases. Switched on by `CACHEAPP["METRICS"]`.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from cacheapp.backends.core.counters import Counters, counters
from cacheapp.backends.core.operation import UNNAMED, Operation
from cacheapp.backends.core.operations import subscribe
from cacheapp.backends.local import forks
from cacheapp.conf import state_dir
from cacheapp.errors import LockLost, OutcomeUnknown, StoreFull, StoreUnavailable

OPERATIONS = (
    *("get", "get_many", "get_or_set", "has_key", "ttl", "pttl", "keys", "iter_keys"),
    *("set", "set_many", "add", "incr", "decr", "incr_version", "decr_version"),
    *("touch", "expire", "pexpire", "expire_at", "pexpire_at", "persist"),
    *("delete", "delete_many", "delete_pattern", "clear", "evict"),
    *("lock_acquire", "lock_release", "lock_extend"),
    "collection",
)
"""The names that are counted; `collection` stands for all methods on sets, hashes and sorted sets."""

BOUNDS_S = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0)
"""The upper bounds of the classes of durations; the last class has no bound."""

_ERRORS: Mapping[str, type[BaseException]] = {
    "outcome_unknown": OutcomeUnknown,
    "store_full": StoreFull,
    "store_unavailable": StoreUnavailable,
    "lock_lost": LockLost,
}
KINDS = (*_ERRORS, "other")
"""The kinds of errors. `other` includes those of the caller: `incr` of a missing key, or its function."""

_CLASSES = len(BOUNDS_S) + 1
_NUMBERS = _CLASSES + 1  # of an operation: each class, and the nanoseconds
_NAMES = (
    *(f"{operation} {number}" for operation in OPERATIONS for number in range(_NUMBERS)),
    *KINDS,
)
_STARTS = {operation: number * _NUMBERS for number, operation in enumerate(OPERATIONS)}
_OTHER = _STARTS["collection"]
_FIRST_ERROR = len(OPERATIONS) * _NUMBERS
_find_class = bisect.bisect_left
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)
_FIRST_BOUND_NS = _BOUNDS_NS[0]


@dataclasses.dataclass(frozen=True)
class Durations:
    """How often an operation took how long."""

    operation: str
    by_class: tuple[int, ...]
    """How many took at most each of `BOUNDS_S` and more than the one before; then, how many more."""
    total_s: float


class OperationCounts:
    """What this process counts; `count` is the subscriber."""

    def __init__(self) -> None:
        self._by_alias: dict[str | None, Counters] = {}

    def count(self, operation: Operation) -> None:
        """Count an operation."""
        alias = operation.cache.alias
        found = self._by_alias.get(alias)
        if found is None:
            found = self._by_alias.setdefault(alias, _counters(alias or UNNAMED))
        if not forks.mark[0]:
            forks.recover()
        spent_ns = operation.spent_ns
        number = start = _STARTS.get(operation.operation, _OTHER)
        if spent_ns > _FIRST_BOUND_NS:  # most take less: a comparison instead of a call
            number += _find_class(_BOUNDS_NS, spent_ns)
        sum_at = start + _CLASSES
        row = found.row
        row[number] += 1
        row[sum_at] += spent_ns
        if operation.error is not None:
            found.add(_FIRST_ERROR + KINDS.index(kind_of(operation.error)))


def kind_of(error: BaseException) -> str:
    """Return which of `KINDS` an error is."""
    return next((kind for kind, cls in _ERRORS.items() if isinstance(error, cls)), "other")


def durations(alias: str) -> Iterator[Durations]:
    """Yield what all processes of this machine counted for an alias; operations that occurred only."""
    totals = list(_counters(alias).totals().values())
    for operation, start in _STARTS.items():
        by_class = tuple(totals[start : start + _CLASSES])
        if any(by_class):
            yield Durations(operation, by_class, totals[start + _CLASSES] / 1e9)


def errors(alias: str) -> dict[str, int]:
    """Return how many operations of the alias failed, by kind."""
    totals = _counters(alias).totals()
    return {kind: totals[kind] for kind in KINDS}


def _counters(alias: str) -> Counters:
    return counters(state_dir() / f"operations-{quote(alias, safe='')}", _NAMES, frozenset[int]())


class _Switch:
    """Whether this process counts."""

    def __init__(self) -> None:
        self._counts: OperationCounts | None = None

    def start(self) -> None:
        """Count the operations of this process from now on; a second call changes nothing."""
        if self._counts is None:
            self._counts = OperationCounts()
            subscribe(self._counts.count)


start = _Switch().start
