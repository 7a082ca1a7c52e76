"""What caches with a copy per machine promise: bounded staleness, and one order on each machine.

A value is older than a write if every operation that may have written it ended before the write began.
Concurrent writes prove nothing. A read is *too old* if a write that is newer than what it returned
ended more than the bound before the read began. A machine *went back* if a read returned what is
older than a write of which the machine knew before the read began.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome, by_key
from cacheapp.consistency.sessions import Writers, possible_writers, writers_of


@dataclass(frozen=True)
class Known:
    """A write, and the moment since when it has certainly taken effect."""

    since_ns: float
    write: Operation


@dataclass(frozen=True)
class TooOld:
    """A read that returned what is too old, and a write that proves it."""

    read: Operation
    newer: Operation
    written: tuple[Operation, ...]
    """The operations that may have written what was read; none if the key was never written before."""
    age_ns: int
    """How long before the read began the newer write was known."""


def too_old(
    operations: Iterable[Operation], bound_ns: int, *, evicts: bool = False
) -> list[TooOld]:
    """Return the reads that are older than the bound. `evicts`: accept every miss.

    A write with an unknown outcome proves nothing.
    """
    found: list[TooOld] = []
    for own in by_key(operations).values():
        known = [Known(one.end, one) for one in own if _is_acknowledged(one)]
        found += _older(_reads(own, evicts=evicts), known, writers_of(own), bound_ns)
    return found


def went_back(
    operations: Iterable[Operation],
    machine_of: Callable[[Operation], str],
    *,
    evicts: bool = False,
) -> list[TooOld]:
    """Return the reads that are older than what a process of the same machine knew before they began.

    A machine knows its acknowledged writes, and those whose values its processes have read. It also
    knows a write of its own whose reply was lost, if another read had returned the value before.
    """
    found: list[TooOld] = []
    for own in by_key(operations).values():
        writers = writers_of(own)
        for machine in {machine_of(one) for one in own}:
            here = [one for one in own if machine_of(one) == machine]
            reads = _reads(here, evicts=evicts)
            known = [*_own_writes(here, own), *_writes_read(reads, writers)]
            found += _older(reads, known, writers, 0)
    return found


def _own_writes(here: Sequence[Operation], everywhere: Sequence[Operation]) -> Iterator[Known]:
    for one in here:
        if _is_acknowledged(one):
            yield Known(one.end, one)
        elif one.kind is OperationKind.SET and one.outcome is Outcome.INFO and one.return_ns:
            seen = (each for each in _reads(everywhere) if each.result == one.argument)
            if any(each.end < one.return_ns for each in seen):
                yield Known(one.return_ns, one)


def _writes_read(reads: Sequence[Operation], writers: Writers) -> Iterator[Known]:
    """Yield for each value that was read the write that began first of those that may have written it."""
    for read in reads:
        if read.result is not ABSENT and (written := possible_writers(read, writers)):
            yield Known(read.end, min(written, key=_call_ns))


def _is_acknowledged(one: Operation) -> bool:
    return one.may_write and one.outcome is Outcome.OK


def _reads(operations: Sequence[Operation], *, evicts: bool = False) -> list[Operation]:
    return [
        one
        for one in operations
        if one.kind is OperationKind.GET
        and one.outcome is Outcome.OK
        and not (evicts and one.result is ABSENT)
    ]


def _older(
    reads: Sequence[Operation], known: list[Known], writers: Writers, bound_ns: int
) -> Iterator[TooOld]:
    """Yield the reads that are older than a write that was known `bound_ns` before they began."""
    known = sorted(known, key=lambda one: one.since_ns)
    moments = [one.since_ns for one in known]
    latest = list(accumulate(known, _that_began_last))  # of those that are known until then
    for read in reads:
        index = bisect_left(moments, read.call_ns - bound_ns) - 1
        if index < 0:
            continue
        written, newer = possible_writers(read, writers), latest[index]
        if all(writer.end < newer.write.call_ns for writer in written):
            age_ns = int(read.call_ns - newer.since_ns)
            yield TooOld(read, newer.write, tuple(written), age_ns)


def _that_began_last(before: Known, one: Known) -> Known:
    return before if before.write.call_ns > one.write.call_ns else one


def _call_ns(operation: Operation) -> int:
    return operation.call_ns
