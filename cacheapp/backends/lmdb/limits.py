"""How large a cache may become, and how its files divide that: fixed when they are made."""

import dataclasses

PAGE = 4096
READERS = 1022  # read transactions at a time: more than threads that read in the same microsecond
_LOCK_BYTES = (READERS + 4) * 64  # LMDB keeps one cache line per reader, and a few for itself
_SLOT_PER_BYTES = 256
_FEWEST_SLOTS = 4096
_USABLE = 0.8
MIN_SIZE_LIMIT = 2**20


@dataclasses.dataclass(frozen=True)
class SizeLimits:
    """What the options say, and what follows from them."""

    size_limit: int
    max_entries: int | None

    @property
    def name(self) -> str:
        """A part of the directory's name: files made with other limits are other files."""
        return f"{self.size_limit}-{self.max_entries or 0}"

    @property
    def lock_bytes(self) -> int:
        """Size of LMDB's lock file, from which it computes how many readers there may be."""
        return _LOCK_BYTES

    @property
    def slots(self) -> int:
        """How many entries have a mark of their own in the map of marks: a power of two."""
        wanted = max(_FEWEST_SLOTS, self.size_limit // _SLOT_PER_BYTES)
        return 1 << (wanted.bit_length() - 1)

    @property
    def map_bytes(self) -> int:
        """Size of the data file: what is left of `size_limit`."""
        rest = self.size_limit - self.lock_bytes - self.slots - PAGE
        return rest // PAGE * PAGE

    @property
    def usable_bytes(self) -> int:
        """What entries may take up of the map.

        The rest is room for LMDB's copies: a transaction writes new pages before old ones are
        free, and a reader that is stopped in the middle keeps all pages of its moment.
        """
        return int(self.map_bytes * _USABLE)

    @property
    def max_entry_bytes(self) -> int:
        """The largest entry. One that leaves room for nothing else is no use in a cache."""
        return self.usable_bytes // 3
