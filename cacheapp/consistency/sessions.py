"""Session guarantees, which are weaker than one order for all, and the number of stale reads.

A near cache or a replica may keep these without being linearizable: *read your writes* (after its
own write, a process never reads an older value) and *monotonic reads* (its reads never go back).
A value is older if every operation that may have written it ended before the newer one began. So a
history that has one order keeps both (Terry et al., "Session Guarantees
for Weakly Consistent Replicated Data", 1994).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome, by_key

Writers = dict[Hashable, list[Operation]]


@dataclass(frozen=True)
class Broken:
    """A read that returned an older value than an earlier operation of the same process."""

    before: Operation
    read: Operation
    writers: tuple[Operation, ...]
    """The operations that may have written the value read."""


def read_your_writes(operations: Iterable[Operation], *, evicts: bool = False) -> list[Broken]:
    """Return the reads of values older than an earlier write of the same process.

    `evicts`: accept every miss.
    """
    return list(_broken(operations, evicts=evicts, writes=True))


def monotonic_reads(operations: Iterable[Operation], *, evicts: bool = False) -> list[Broken]:
    """Return the reads of values older than an earlier read of the same process."""
    return list(_broken(operations, evicts=evicts, writes=False))


def stale_reads(operations: Iterable[Operation], *, evicts: bool = False) -> tuple[int, int]:
    """Return how many reads were certainly stale, and how many reads there were.

    Certainly stale: every operation that may have written the value ended before another write began,
    and that write ended before the read began.
    """
    stale = reads = 0
    for own in by_key(operations).values():
        writers = writers_of(own)
        ended = sorted(
            (one.end, one.call_ns) for one in own if one.may_write and one.outcome is Outcome.OK
        )
        newest: list[tuple[float, int]] = []  # (end, the latest call of what ended until then)
        for end, call in ended:
            newest.append((end, max(call, newest[-1][1]) if newest else call))
        for read in own:
            if read.kind is OperationKind.GET and read.outcome is Outcome.OK:
                reads += 1
                if evicts and read.result is ABSENT:
                    continue
                stale += _is_stale(read, writers, newest)
    return stale, reads


def _is_stale(read: Operation, writers: Writers, newest: list[tuple[float, int]]) -> bool:
    index = bisect_left(newest, (read.call_ns, -1)) - 1
    if index < 0:
        return False
    _end, call = newest[index]
    return all(writer.end < call for writer in possible_writers(read, writers))


def writers_of(operations: Sequence[Operation]) -> Writers:
    """Return, for each value and for absence, the operations that may have produced it."""
    found: Writers = defaultdict(list)
    for one in operations:
        if not one.may_write:
            continue
        if one.kind in {OperationKind.SET, OperationKind.ADD}:
            found[one.argument].append(one)
        elif one.kind is OperationKind.DELETE:
            found[ABSENT].append(one)
        elif one.outcome is Outcome.OK:
            found[one.result].append(one)
        else:
            found[None].append(one)  # an unknown sum
    return found


def possible_writers(read: Operation, writers: Writers) -> list[Operation]:
    """Return the operations that may have written what a read returned."""
    unsaid = writers.get(None, []) if isinstance(read.result, int) else []
    candidates = [*writers.get(read.result, []), *unsaid]
    return [one for one in candidates if one.call_ns <= read.end]


def _broken(operations: Iterable[Operation], *, evicts: bool, writes: bool) -> Iterator[Broken]:
    for own in by_key(operations).values():
        writers = writers_of(own)
        before: dict[str, list[Operation]] = defaultdict(list)
        for one in own:  # by call, and a process does one thing at a time
            if one.outcome is not Outcome.OK:
                continue
            is_read = one.kind is OperationKind.GET and not (evicts and one.result is ABSENT)
            if is_read:
                written = tuple(possible_writers(one, writers))
                for earlier in before[one.process]:
                    if _went_back(earlier, written, writers):
                        yield Broken(earlier, one, written)
                        break
            if one.may_write if writes else is_read:
                before[one.process] = [*before[one.process][-7:], one]


def _went_back(earlier: Operation, written: Sequence[Operation], writers: Writers) -> bool:
    """Return whether every possible writer of the value ended before the version of `earlier` began."""
    if earlier.kind is not OperationKind.GET:
        return all(one.precedes(earlier) for one in written)
    versions = possible_writers(earlier, writers)
    if not versions:  # absent since the beginning: nothing is older
        return False
    return all(one.precedes(version) for one in written for version in versions)
