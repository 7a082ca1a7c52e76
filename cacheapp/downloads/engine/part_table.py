"""Which bytes of a file are missing, divided into parts that threads claim. Pure.

Parts are claimed in the order of the file. So its beginning grows while the rest is fetched, and
its digest can be computed meanwhile: SHA-256 needs the bytes in order. Parts become smaller towards
its end (guided self-scheduling, Polychronopoulos & Kuck 1987): there are few requests, and all
connections end at about the same time.
"""

import dataclasses
from collections.abc import Sequence

from cacheapp.downloads.storage.range_journal import Span

_MAX_PART_BYTES = 64 * 2**20
_SHARES = 2
"""A part is the missing bytes from its begin on, divided by so many times the connections."""


@dataclasses.dataclass(eq=False)
class Part:
    """The bytes of one request that are still missing: from `at` to before `end`."""

    at: int
    end: int
    claimed: bool = False


class PartTable:
    """The missing bytes of one file. Not thread-safe: its owner locks.

    Invariant: the parts are in order, do not overlap, and are the bytes that are not on disk; a
    claimed part belongs to one thread.
    """

    def __init__(
        self, total: int, spans: Sequence[Span], connections: int, least_bytes: int
    ) -> None:
        """`spans`: the ranges on disk, merged. `least_bytes`: the size of the last parts."""
        self.total = total
        self.bytes_done = sum(end - first for first, end in spans)
        self._parts: list[Part] = []
        at, left = 0, total - self.bytes_done
        for first, end in (*spans, (total, total)):
            while at < first:
                wanted = max(least_bytes, left // (_SHARES * connections), 1)
                size = min(wanted, _MAX_PART_BYTES, first - at)
                self._parts.append(Part(at, at + size))
                at, left = at + size, left - size
            at = end

    def claim(self, since: int = 0, *, last: bool = False, at: int | None = None) -> Part | None:
        """Claim the first part that is free and does not begin before `since`; or `None`.

        `last`: the last one instead. `at`: only the one that begins there.
        """
        for part in reversed(self._parts) if last else self._parts:
            if not part.claimed and part.at >= since and at in {None, part.at}:
                part.claimed = True
                return part
        return None

    def advance(self, part: Part, count: int) -> None:
        """Record that the next `count` bytes of a part are on disk."""
        part.at += count
        self.bytes_done += count
        if part.at >= part.end:
            self._parts.remove(part)

    def release(self, part: Part) -> None:
        """Make the rest of a part free again."""
        part.claimed = False

    @property
    def free(self) -> int:
        """The number of parts that no thread has claimed."""
        return sum(not part.claimed for part in self._parts)

    @property
    def prefix(self) -> int:
        """The number of bytes on disk before the first missing one."""
        return self._parts[0].at if self._parts else self.total
