"""`get`, `set` and `incr` in one function each, for the common case.

Each has the effect of its slow twin in `SharedCache`, or no effect, and then calls that twin: for
keys that memcached would refuse, or that are long and not ASCII; for values that are signed,
compressed, a lease, or have a soft deadline; if there is no space; and after any error. The slow
twins define the behaviour, and tests compare both. This layer only saves time: one layer of calls
is a tenth of a `get`.
"""

import struct
from typing import Any

import lmdb
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cacheapp import clock
from cacheapp.backends.core.counters import HITS, MISSES, SETS
from cacheapp.backends.core.timeouts import FOR_EVER_S
from cacheapp.backends.lmdb.entries import put
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.plain_names import COPIED_BELOW, MAX_NAME_BYTES, PlainNames
from cacheapp.backends.lmdb.records import (
    FORMAT,
    HEADER_BYTES,
    INT64_MAX,
    INT64_MIN,
    INT_BYTES,
    INT_START,
    NEVER,
    PLAIN,
    pack_int64,
    pack_plain,
    unpack_indexed,
    unpack_int,
)
from cacheapp.backends.lmdb.store import LMDBStore

# Format and kind, deadline, sequence number and first payload byte of an entry without a key inside.
_unpack = struct.Struct("<H6xd8xQB").unpack_from
_BODY_AT = HEADER_BYTES + 1
_PLAIN = FORMAT | PLAIN << 8
_NO_BYTE = -1
_FOR_EVER_S = int(FOR_EVER_S)  # comparing two integers takes a third of the time


class FastPath(PlainNames):
    """A layer that handles the common case of three methods itself."""

    _store: LMDBStore

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self._loads, self._dumps = self._codec.loads, self._codec.dumps
        head = self._codec.unsigned_head
        self._plain = head[0] if head else _NO_BYTE  # the fast path never reads signed values
        self._bare = self._codec.bare

    def _source_of_names(self) -> tuple[Environment, bytes]:
        store: Any = self._store
        if not isinstance(store, LMDBStore):  # then each use raises the mistakes in CACHES
            return store, b""
        return store.environment, store.keys.prefix

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or `default`. A cached `None` is returned as `None`."""
        head = self._head
        if version is None and type(key) is str and head and key.isprintable() and " " not in key:
            name: bytes | None = head + key.encode()
        else:
            name = self._name(key, version)
        if name is None or len(name) > MAX_NAME_BYTES:
            return super().get(key, default, version)
        environment = self._environment
        now = clock.boot_s()
        raw = environment.get(name, now)
        if raw is None:
            self._counters.row[MISSES] += 1
            return default
        try:
            kind, deadline, number, first = _unpack(raw)
        except struct.error:  # too short: another program's
            return super().get(key, default, version)
        if kind == _PLAIN and first == self._plain and now < deadline:
            try:
                value = self._loads(
                    raw[_BODY_AT:] if len(raw) < COPIED_BELOW else memoryview(raw)[_BODY_AT:]
                )
            except Exception as exc:
                if self._codec.reason_to_reject(memoryview(raw)[_BODY_AT:], exc) is None:
                    raise
                # Foreign: the slow twin removes it.
            else:
                reference_bits = environment.reference_bits
                slot = number & reference_bits.mask
                if not reference_bits.bits[slot]:
                    reference_bits.bits[slot] = 1
                self._counters.row[HITS] += 1
                return value
        return super().get(key, default, version)

    def set(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        """Store the value for `timeout` seconds; see `SharedCache.set`."""
        ttl = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        head = self._head
        if version is None and type(key) is str and head and key.isprintable() and " " not in key:
            name: bytes | None = head + key.encode()
        else:
            name = self._name(key, version)
        if (
            name is not None
            and len(name) <= MAX_NAME_BYTES
            and self._bare
            and type(value) is not int
            and (ttl is None or (type(ttl) is int and 0 < ttl < _FOR_EVER_S))
            and not (stale or jitter or nx or xx)
        ):
            body = self._dumps(value)
            try:
                if self._environment.transact(_put_plain, (name, self._plain, body, ttl)):
                    self._counters.row[SETS] += 1
                    return None
            except lmdb.MapFullError:
                pass
            # Serialized only once and, if nothing can store it, not copied: it may be very large.
            final = self.make_and_validate_key(key, version=version)
            if len(body) >= self._environment.max_entry_bytes:
                self._store.reject(final, len(body))
            else:
                self._store.set(final, self._codec.unsigned_head + body, ttl)
            self._counters.row[SETS] += 1
            return None
        how: dict[str, Any] = {"stale": stale, "jitter": jitter, "nx": nx, "xx": xx}
        return super().set(key, value, timeout, version, **how)

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` to a number; return the sum; see `SharedCache.incr`."""
        head = self._head
        if version is None and type(key) is str and head and key.isprintable() and " " not in key:
            name: bytes | None = head + key.encode()
        else:
            name = self._name(key, version)
        if name is not None and len(name) <= MAX_NAME_BYTES and type(delta) is int:
            try:
                total = self._environment.transact(_incr_plain, (name, delta))
            except lmdb.MapFullError:
                total = None
            if total is not None:
                return total
        return super().incr(key, delta, version)


# -- inside one transaction ----------------------------------------------------------------------


def _put_plain(
    env: OpenEnvironment,
    transaction: Transaction,
    item: tuple[bytes, int, bytes, float | None],
) -> bool:
    """Do what `entries.put` does with a `PLAIN` payload; return False if it is too large.

    An entry that replaces one of at least its size, and expires no earlier than that one's index
    record, needs neither space nor a new index record: then a single `put` is enough.
    """
    name, first, body, ttl = item
    now = env.now
    if now < env.due_s:
        old = transaction.get(name)
        if old is not None and len(old) > HEADER_BYTES + len(body) and old[0] == FORMAT:
            indexed, number = unpack_indexed(old)
            deadline = NEVER if ttl is None else now + ttl
            if deadline >= indexed:
                reference_bits = env.reference_bits
                reference_bits.bits[number & reference_bits.mask] = 1
                head = pack_plain(FORMAT, PLAIN, 0, deadline, indexed, number, first)
                transaction.put(name, head + body)
                return True
    if len(body) >= env.limits.max_entry_bytes:
        return False
    put(env, transaction, (name, b""), bytes([first]) + body, ttl)
    return True


def _incr_plain(
    env: OpenEnvironment, transaction: Transaction, item: tuple[bytes, int]
) -> int | None:
    """Do what `entries.incr` does if number and sum have 64 bits; else return `None`, unchanged."""
    name, delta = item
    raw = transaction.get(name)
    if raw is None or len(raw) != INT_BYTES or raw[:2] != INT_START:
        return None
    fields = unpack_int(raw)
    total: int = fields[6] + delta
    if fields[3] <= env.now or not INT64_MIN <= total <= INT64_MAX:
        return None
    reference_bits = env.reference_bits
    reference_bits.bits[fields[5] & reference_bits.mask] = 1
    changed = raw[:HEADER_BYTES] + pack_int64(total)
    transaction.put(name, changed)
    return total
