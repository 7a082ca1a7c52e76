"""Bounded staleness: no read returns what was overwritten longer ago than a bound when it began.

A read is *too old* if every operation that may have written what it returned ended before another
write began, and that write ended more than the bound before the read began. Concurrent writes prove
nothing, and neither does a write with an unknown outcome.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome, by_key
from cacheapp.consistency.sessions import possible_writers, writers_of


@dataclass(frozen=True)
class TooOld:
    """A read beyond the bound, and a write that proves it."""

    read: Operation
    newer: Operation
    written: tuple[Operation, ...]
    """The operations that may have written what was read; none if the key was never written before."""

    @property
    def age_ns(self) -> int:
        """How long before the read began the newer write had ended."""
        assert self.newer.return_ns is not None  # noqa: S101 (an acknowledged write)
        return self.read.call_ns - self.newer.return_ns


def too_old(
    operations: Iterable[Operation], bound_ns: int, *, evicts: bool = False
) -> list[TooOld]:
    """Return the reads that are older than the bound. `evicts`: accept every miss."""
    found = []
    for own in by_key(operations).values():
        writers = writers_of(own)
        acknowledged = sorted(
            (one for one in own if one.may_write and one.outcome is Outcome.OK),
            key=lambda one: one.end,
        )
        ends = [one.end for one in acknowledged]
        latest: list[Operation] = []  # of those that ended until then, the one that began last
        for one in acknowledged:
            latest.append(max(one, latest[-1], key=_call_ns) if latest else one)
        for read in own:
            if read.kind is not OperationKind.GET or read.outcome is not Outcome.OK:
                continue
            index = bisect_left(ends, read.call_ns - bound_ns) - 1
            if index < 0 or (evicts and read.result is ABSENT):
                continue
            written = possible_writers(read, writers)
            if all(writer.end < latest[index].call_ns for writer in written):
                found.append(TooOld(read, latest[index], tuple(written)))
    return found


def _call_ns(operation: Operation) -> int:
    return operation.call_ns
