"""The reading half of `DiskStore`: which shard has which key, and what is asked of it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.local_store import LocalStore
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.disk.entries import (
    SELECT_DEADLINE,
    SELECT_HEAD,
    SELECT_KEYS,
    SELECT_VALUE,
    visible,
)
from cacheapp.backends.disk.leases import Shard
from cacheapp.backends.disk.value_files import ValueFiles, payload_from_column
from cacheapp.backends.local.sqlite_connections import Connection
from cacheapp.errors import StoreFull, StoreUnavailable


class Reads(LocalStore):
    """What one alias's keys are asked for.

    A key is routed by what follows its version, so all versions of a key are in one shard and
    `move` is one transaction. The version is found by position, as what stands between the known
    prefix and the next colon, because prefixes may contain colons.
    """

    _count: int
    _version_at: int
    _files: list[ValueFiles]
    _records_access: bool
    _run: Callable[..., Any]
    _read: Callable[[int, str, str], list[Any]]

    def _shard_number(self, key: str) -> int:
        if self._count == 1:
            return 0
        return crc32(key[key.find(":", self._version_at) + 1 :].encode()) % self._count

    def _by_shard(self, keys: Sequence[str]) -> dict[int, list[str]]:
        shards: dict[int, list[str]] = {}
        for key in keys:
            shards.setdefault(self._shard_number(key), []).append(key)
        return shards

    def get(self, key: str) -> Payload | None:
        """Return the payload: one SELECT, and for a large value its file."""
        number = self._shard_number(key)
        rows = self._read(number, SELECT_VALUE, key)
        if not rows:
            return None
        found: Payload | None
        value, filename, _, _ = row = rows[0]
        if filename is None:
            found = value if type(value) is not str else payload_from_column(value)
        else:
            found = None
            with contextlib.suppress(OSError):  # met again below, where it becomes the cache's own
                found = self._files[number].load(filename, row[2], value)
            if found is None:
                found = self._run(number, Shard.load, key, row)
        if self._records_access and found is not None and not lease_format.is_lease(found):
            with contextlib.suppress(StoreFull, StoreUnavailable):  # it is only a hint
                self._run(number, Shard.record_access, key)
        return found

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that are there; one SELECT per key."""
        found = {}
        for key in keys:
            payload = self.get(key)
            if payload is not None:
                found[key] = payload
        return found

    def has(self, key: str) -> bool:
        """Return whether an entry is there."""
        rows = self._read(self._shard_number(key), SELECT_HEAD, key)
        return bool(rows) and visible(rows[0][0], clock.wall_s())

    def ttl(self, key: str) -> float | None:
        """Return the seconds left."""
        rows = self._read(self._shard_number(key), SELECT_DEADLINE, key)
        if not rows:
            return 0.0
        deadline, head = rows[0]
        now = clock.wall_s()
        if head is not None:
            if not lease_format.is_visible(head, now):
                return 0.0
            deadline = lease_format.soft_deadline_s(head)
        return None if deadline is None else max(0.0, deadline - now)

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        """Yield matching keys, shard by shard in the order of keys; each batch is one SELECT."""
        for number in range(self._count):
            for rows in self._batches(number, prefix, pattern, batch):
                now = clock.wall_s()
                yield from [key for key, head in rows if visible(head, now)]

    def _batches(
        self, number: int, prefix: str, pattern: str, batch: int
    ) -> Iterator[list[tuple[str, bytes | None]]]:
        """Yield the rows of `SELECT_KEYS` that match, leases too."""
        matches = glob_to_regex(pattern).fullmatch
        # What begins with the prefix stands together in the order of keys, from the prefix on.
        last, going = prefix, True
        if self._shard_number(prefix) == number and matches(""):
            yield [(prefix, head) for (head,) in self._read(number, SELECT_HEAD, prefix)]
        batch = max(1, batch)  # with none at a time there would be no end
        while going:
            rows = self._run(number, _keys_after, last, batch, writing=False)
            going = len(rows) == batch
            found = []
            for row in rows:
                last = row[0]
                if not last.startswith(prefix):
                    going = False
                    break
                if matches(last, len(prefix)):
                    found.append(row)
            yield found


def _keys_after(_shard: Shard, con: Connection, last: str, batch: int) -> list[Any]:
    return con.execute(SELECT_KEYS, (last, clock.wall_s(), batch)).fetchall()
