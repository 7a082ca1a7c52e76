"""The reading half of `LMDBStore`: each primitive is one read transaction."""

from collections.abc import Iterator, Sequence

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.core.store import Store
from cacheapp.backends.lmdb import entries, eviction
from cacheapp.backends.lmdb.entries import Found
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import NEVER, decode_payload, parse_header
from cacheapp.backends.lmdb.reference_bits import EVICTED, EXPIRED, REJECTED


class Reads(Store):
    """What one alias's keys are asked for."""

    def __init__(self, environment: Environment, names: KeyEncoder) -> None:
        super().__init__()
        self.environment = environment
        self.names = names
        self._read = environment.read

    def get(self, key: str) -> Payload | None:
        """Return the payload: one read transaction, and a mark that the entry was used."""
        now = clock.boot_s()
        return self._payload(key, self.environment.get(self.names.short(key), now), now)

    def _payload(self, key: str, raw: bytes | None, now: float) -> Payload | None:
        """Return the payload of an entry that is alive, and mark it."""
        head = parse_header(raw)
        if raw is None or head is None or head[3] <= now:
            return None
        if head[2] and self.names.key(b"", raw, head) != key:
            return None  # another key with this hash
        reference_bits = self.environment.reference_bits
        slot = head[5] & reference_bits.mask
        if not reference_bits.bits[slot]:
            reference_bits.bits[slot] = 1
        return decode_payload(raw, head)

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that are there, all of one snapshot."""
        rows = self._read(entries.peek_many, [self.names.short(key) for key in keys])
        now = clock.boot_s()
        found = {}
        for key, raw in zip(keys, rows, strict=True):
            payload = self._payload(key, raw, now)
            if payload is not None:
                found[key] = payload
        return found

    def _peek(self, key: str) -> Found | None:
        return self._read(entries.peek, self.names.short(key))

    def has(self, key: str) -> bool:
        """Return whether an entry is there."""
        found = self._peek(key)
        return found is not None and entries.is_visible(found)

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        found = self._peek(key)
        if found is None or not entries.is_visible(found):
            return 0.0
        payload = decode_payload(*found)
        if isinstance(payload, bytes) and lease_format.is_soft(payload):
            return max(0.0, lease_format.soft_deadline_s(payload) - clock.wall_s())
        deadline = found[1][3]
        return None if deadline == NEVER else max(0.0, deadline - clock.boot_s())

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys; each batch is one snapshot, and none is held between two keys."""
        for found in self._pages(prefix, pattern, batch):
            yield from [key for key, _name, entry in found if entries.is_visible(entry)]

    def _pages(
        self, prefix: str, pattern: str, batch: int
    ) -> Iterator[list[tuple[str, bytes, Found]]]:
        """Yield key, name and entry of what matches, leases too; long keys come last."""
        matches = glob_to_regex(pattern).fullmatch
        ranges = [self.names.short(prefix), self.names.hashed]
        if not ranges[0].startswith(self.names.space):
            del ranges[0]  # so long that its own name is a hash
        for start in ranges:
            for rows in self._rows(start, batch):
                named = [
                    (self.names.key(name, *found), name, found)
                    for name, found in rows
                    if found is not None
                ]
                yield [
                    row
                    for row in named
                    if row[0].startswith(prefix) and matches(row[0], len(prefix))
                ]

    def _rows(self, start: bytes, batch: int) -> Iterator[list[tuple[bytes, Found | None]]]:
        batch = max(1, batch)  # with none at a time there would be no end
        after = b""
        while True:
            rows = self._read(entries.page, start, after, batch)
            yield rows
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def figures(self) -> dict[str, int]:
        """Return what the whole directory holds, and what its room made necessary."""
        return self._read(_figures)


def _figures(env: OpenEnvironment, transaction: Transaction) -> dict[str, int]:
    used = eviction.used_bytes(env, transaction)
    numbers = env.reference_bits.counters
    readers = env.lmdb.readers().count("\n") - 1  # a line for each, below a title
    return {
        "entries": transaction.stat(env.entries)["entries"],
        "bytes_used": used,
        "bytes_free": max(0, env.limits.usable_bytes - used),
        "bytes_reserved": env.limits.map_bytes,
        "evictions": numbers[EVICTED],
        "expirations": numbers[EXPIRED],
        "sets_without_room": numbers[REJECTED],
        "reader_slots": max(0, readers),
    }
