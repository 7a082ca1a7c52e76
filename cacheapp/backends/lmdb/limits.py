"""How large a cache may become, and how its files divide that size; fixed when they are created."""

import dataclasses

PAGE = 4096
READERS = 1022  # read transactions at a time: more than threads that read in the same microsecond
_LOCK_BYTES = (READERS + 4) * 64  # LMDB keeps one cache line per reader, and a few for itself
_BYTES_PER_BIT = 256
_MIN_BITS = 4096
_MAX_CHANGE_COUNTERS = 2**16
_USABLE = 0.8
MIN_SIZE_LIMIT = 2**20


@dataclasses.dataclass(frozen=True)
class SizeLimits:
    """The options `size_limit` and `MAX_ENTRIES`, and the sizes that follow from them."""

    size_limit: int
    max_entries: int | None
    counts_changes: bool = False
    """Whether there are counters of removed entries, see `ReferenceBits.count_change`."""
    record_bytes: int = 0
    """Space beside `size_limit` for records of the environment's own: entries never use it."""

    @property
    def name(self) -> str:
        """A part of the directory's name, as files with other limits are other files."""
        records = f"-{self.record_bytes}" if self.record_bytes else ""
        return f"{self.size_limit}-{self.max_entries or 0}{records}"

    @property
    def lock_bytes(self) -> int:
        """Size of LMDB's lock file, which determines the maximal number of readers."""
        return _LOCK_BYTES

    @property
    def reference_bits(self) -> int:
        """Number of reference bits, each in its own byte: a power of two."""
        wanted = max(_MIN_BITS, self.size_limit // _BYTES_PER_BIT)
        return 1 << (wanted.bit_length() - 1)

    @property
    def change_counters(self) -> int:
        """Number of counters of changes, of eight bytes each: 0 or a power of two."""
        return min(_MAX_CHANGE_COUNTERS, self.reference_bits // 2) if self.counts_changes else 0

    @property
    def _overhead_bytes(self) -> int:
        return self.lock_bytes + self.reference_bits + 8 * self.change_counters + PAGE

    @property
    def map_bytes(self) -> int:
        """Size of the data file: the rest of `size_limit`, and the records."""
        return (self.size_limit - self._overhead_bytes + self.record_bytes) // PAGE * PAGE

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return self.map_bytes + self._overhead_bytes

    @property
    def usable_bytes(self) -> int:
        """The part of the map that entries may use.

        The rest is for LMDB's copies: a transaction writes new pages before old ones are free, and
        a reader that is stopped during a transaction retains all pages of its snapshot.
        """
        return int((self.map_bytes - self.record_bytes) * _USABLE)

    @property
    def max_entry_bytes(self) -> int:
        """Size of the largest entry. One that displaces all others is useless in a cache."""
        return self.usable_bytes // 3
