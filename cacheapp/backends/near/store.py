"""`Store` on Redis with a copy on this machine. The primitives are those of `RedisStore`.

Invariants, on which docs/near-cache.md bases its proof:

- After a write of a key has been acknowledged, or its reply was lost, the copy has no entry from
  before, and no fill in progress stores one: `_then_forget`. So a process reads its own writes, as
  does every other process of this machine from then on.
- A read that returns what Redis has leaves no other value in the copy, and no fill in progress that
  stores one: neither the end of a fill, nor a read that fills nothing (`get`, `get_many`, `has`,
  `lease`). So reads of one key by the processes of one machine never go back.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.counters import COPY_INVALIDATIONS
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.near import records
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.listener import InvalidationListener
from cacheapp.backends.near.records import Fill
from cacheapp.backends.near.tracking import Tracked, TrackedServer
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.batches import in_batches
from cacheapp.backends.redis.encoding import (
    decode_key,
    decode_payload,
    encode_key,
    encode_payload,
)
from cacheapp.backends.redis.executor import FailureKind
from cacheapp.backends.redis.store import RedisStore

_NO_DEADLINE = -1  # a reply of PTTL
Fetched = tuple[Payload | None, float | None, bytes | None]
"""What Redis has, the seconds left, `None` without a deadline, and which node of a cluster replied."""


def _then_forget(method: Callable[..., Any]) -> Any:
    """Return the method of `RedisStore`, followed by the removal of its key from the copy."""

    @functools.wraps(method)
    def wrapped(self: "NearStore", key: str, *args: Any) -> Any:
        try:
            return method(self, key, *args)
        finally:
            self.copy.forget_one(key)

    return wrapped


def as_fetched(payload: Any, left_ms: int, origin: bytes | None = None) -> Fetched:
    """Return what the replies to GET and PTTL mean."""
    if payload is None:
        return None, None, origin
    ttl = None if left_ms == _NO_DEADLINE else max(left_ms, 0) / 1000
    return decode_payload(payload), ttl, origin


class NearStore(RedisStore):
    """One process's store: a `RedisStore`, this machine's copy, and perhaps the listener."""

    def __init__(
        self, *args: Any, copy: LocalCopy, prefix: bytes, write_s: float, timeout_s: float
    ) -> None:
        self.copy = copy
        self._prefix = prefix
        self.write_s = write_s
        """How long a write may take."""
        self._timeout_s = timeout_s  # of a connection, or of a reply
        super().__init__(*args)

    def _open(self) -> None:
        super()._open()
        self.invalidations = InvalidationListener(
            self._build_tracked,
            self.copy,
            self._name,
            self._count_invalidations,
            self._count_reads,
            self._timeout_s,
        )

    def _build_tracked(self) -> Tracked:
        """Return the servers whose changes the copy follows."""
        pool = self._own_client.get_client(write=True).connection_pool
        return TrackedServer(pool, self._prefix)

    def _count_reads(self) -> int:
        """Return how many reads of the copy this machine has counted."""
        totals = (each.totals() for each in tuple(self.counters))
        return sum(found["copy_hits"] + found["copy_absent"] for found in totals)

    def _count_invalidations(self, removed: int) -> None:
        for counters in tuple(self.counters):
            counters.add(COPY_INVALIDATIONS, removed)

    # -- reads, which leave nothing older in the copy ----------------------------------------------

    def get(self, key: str) -> Payload | None:
        """Return the payload that Redis has."""
        payload = super().get(key)
        self.forget_others({key: payload})
        return payload

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads that Redis has."""
        found = super().get_many(keys)
        self.forget_others({key: found.get(key) for key in keys})
        return found

    def has(self, key: str) -> bool:
        """Return True if Redis has a visible entry."""
        exists = super().has(key)
        _, (copied,) = self.copy.find([self.copy.encode(key)])
        if not copied.tag or exists == (copied.tag == records.MISSING):
            self.copy.forget([key])
        return exists

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        """Store the lease, or return what Redis has."""
        found = super().lease(key, lease, ttl)
        self.forget_others({key: found})
        return found

    def forget_others(self, payloads: Mapping[str, Payload | None]) -> None:
        """Leave nothing in the copy that differs from what Redis has just returned.

        An equal entry may stay, and needs no transaction: no fill in progress replaces it.
        """
        _, entries = self.copy.find([self.copy.encode(key) for key in payloads])
        old = []
        for (key, payload), copied in zip(payloads.items(), entries, strict=True):
            missing = payload is None or lease_format.is_lease(payload)
            body = b"" if payload is None or missing else encode_payload(payload)
            equal = body == copied.body and missing == (copied.tag == records.MISSING)
            if not copied.tag or not equal:
                old.append(key)
        if old:
            self.copy.forget(old)

    def fetch_one(self, key: str) -> Fetched:
        """Return what Redis has.

        They are two commands, sent at once. The deadline is read first: a write in between voids
        the fill, as any write after its begin.
        """
        encoded = encode_key(key)
        left_ms, payload = self.executor.execute(
            b"PTTL", encoded, kind=FailureKind.READ, also=(b"GET", encoded)
        )
        return as_fetched(payload, left_ms)

    def fetch(self, keys: Sequence[str]) -> list[Fetched]:
        """Return for each key what Redis has."""
        rows: list[Fetched] = []
        for batch in in_batches(keys):
            part = list(map(encode_key, batch))
            reply = self.executor.run_script(scripts.FETCH, len(part), *part, kind=FailureKind.READ)
            rows += map(as_fetched, reply[::2], reply[1::2])
        return rows

    def is_of_owner(self, fill: Fill, key: str, origin: bytes) -> bool:
        """Return True if the node that replied has the key in the epoch of the fill."""
        del fill, key, origin
        return True

    # -- writes ----------------------------------------------------------------------------------

    set = _then_forget(RedisStore.set)
    add = _then_forget(RedisStore.add)
    set_existing = _then_forget(RedisStore.set_existing)
    delete = _then_forget(RedisStore.delete)
    touch = _then_forget(RedisStore.touch)
    persist = _then_forget(RedisStore.persist)
    incr = _then_forget(RedisStore.incr)
    replace = _then_forget(RedisStore.replace)
    fill = _then_forget(RedisStore.fill)
    discard = _then_forget(RedisStore.discard)

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry on Redis; during that, no process of this machine reads one of both elsewhere."""
        both = [source, target]
        until = self.copy.begin_move(both, self.write_s)
        try:
            return super().move(source, target, expected, payload)
        finally:
            self.copy.end_move(both, until)

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads on Redis."""
        try:
            return super().set_many(payloads, ttl)
        finally:
            self.copy.forget(payloads)

    def _remove(self, keys: list[bytes]) -> int:
        try:
            return super()._remove(keys)
        finally:
            self.copy.forget([decode_key(key) for key in keys])

    def flush(self) -> None:
        """Remove every key of the database, including those of other applications."""
        try:
            super().flush()
        finally:
            self.copy.clear()

    # -- the process -----------------------------------------------------------------------------

    def end_request(self) -> None:
        """Check the files of the copy before their next use."""
        self.copy.end_request()

    def close(self) -> None:
        """Stop the listener and close connections and files; the next primitive opens them again."""
        self.invalidations.stop()
        super().close()
        self.copy.close()

    def after_fork_in_child(self) -> None:
        """Leave the listener to the parent."""
        self.invalidations.close_in_child()
        super().after_fork_in_child()
