"""`get`, `set` and `incr` in one piece each, where all is as it mostly is.

Each does what its twin in `SharedCache` does, or nothing, and leaves it to that twin: where a key is
one that memcached would refuse, or has much that is not ASCII, where a value is signed, compressed, a lease or
has a soft deadline, where there is no room, and where anything goes wrong. What is right is written
there; tests hold the two against each other. This is only about what a call costs: a layer of calls
is a tenth of a `get`.
"""

import struct
from typing import Any

import lmdb
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
    default_key_func,
)

from cacheapp import clock
from cacheapp.backends.core.counters import HITS, MISSES, SETS
from cacheapp.backends.core.shared import FOR_EVER_S, SharedCache
from cacheapp.backends.lmdb import fast_path_transaction
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.key_encoding import SPACE_BYTES
from cacheapp.backends.lmdb.records import FORMAT, HEAD_BYTES, PLAIN
from cacheapp.backends.lmdb.store import LMDBStore

# Of an entry whose name is its key: format and kind, deadline, number, first byte of the payload.
_look = struct.Struct("<H6xd8xQB").unpack_from
_BODY_AT = HEAD_BYTES + 1
_PLAIN = FORMAT | PLAIN << 8
_LONGEST = SPACE_BYTES + MEMCACHE_MAX_KEY_LENGTH  # so has the key no more characters, nor bytes
_NO_BYTE = -1
_SHORT = 4096  # bytes that are sooner copied than viewed
_FOR_EVER_S = int(FOR_EVER_S)  # two integers are compared in a third of the time
_OF_KEYS = frozenset(["key_func", "key_prefix", "version"])


def _is_usual(key: str) -> bool:
    """Return whether a key has no character that memcached would refuse, and can be encoded."""
    return key.isprintable() and " " not in key


class FastPath(SharedCache):
    """Mix-in: the short ways."""

    _store: LMDBStore

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        store: Any = self._store
        refused = not isinstance(store, LMDBStore)  # then every use says what is wrong
        self._environment: Environment = store if refused else store.environment
        self._space: bytes = b"" if refused else store.names.space
        self._look_at_keys()
        self._loads, self._dumps = self._codec.loads, self._codec.dumps
        head = self._codec.unsigned_head
        self._plain = head[0] if head else _NO_BYTE  # signed values are never read in short
        self._bare = self._codec.bare

    def __setattr__(self, attribute: str, value: Any) -> None:
        super().__setattr__(attribute, value)
        if attribute in _OF_KEYS and "_head" in self.__dict__:
            self._look_at_keys()

    def _look_at_keys(self) -> None:
        """Note what names of keys begin with; nothing where not all keys are made in Django's way."""
        mine = type(self)
        usual = (
            self.key_func is default_key_func
            and mine.make_key is BaseCache.make_key
            and mine.validate_key is SharedCache.validate_key
        )
        stem = f"{self.key_prefix}:"
        head = f"{stem}{self.version}:"
        ours = usual and _is_usual(head)
        self._stem = self._space + stem.encode() if ours else None
        self._head = self._space + head.encode() if ours else None

    def _name(self, key: Any, version: int | None) -> bytes | None:
        """Return the name of a key in LMDB, or `None` where more is to be said about the key."""
        if version is None and type(key) is str:
            head = self._head
        else:
            head = self._stem
            key = f"{self.version if version is None else version!s}:{key!s}"
        if head is not None and key.isprintable() and " " not in key:  # as `_is_usual`
            name: bytes = head + key.encode()
            if len(name) <= _LONGEST:
                return name
        return None

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or `default`. A cached `None` is returned as `None`."""
        name = self._name(key, version)
        if name is None:
            return super().get(key, default, version)
        environment = self._environment
        now = clock.boot_s()
        raw = environment.get(name, now)
        if raw is None:
            self._counters.row[MISSES] += 1
            return default
        try:
            kind, deadline, number, first = _look(raw)
            if kind == _PLAIN and first == self._plain and now < deadline:
                value = self._loads(
                    raw[_BODY_AT:] if len(raw) < _SHORT else memoryview(raw)[_BODY_AT:]
                )
                reference_bits = environment.reference_bits
                slot = number & reference_bits.mask
                if not reference_bits.bits[slot]:
                    reference_bits.bits[slot] = 1
                self._counters.row[HITS] += 1
                return value
        except Exception:  # noqa: BLE001, S110 (what it was is told below)
            pass
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
    ) -> None:
        """Store the value for `timeout` seconds; see `SharedCache.set`."""
        ttl = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        name = self._name(key, version)
        if (
            name is not None
            and self._bare
            and type(value) is not int
            and (ttl is None or (type(ttl) is int and 0 < ttl < _FOR_EVER_S))
            and not stale
            and not jitter
        ):
            body = self._dumps(value)
            try:
                if self._environment.write(
                    fast_path_transaction.put_plain, name, self._plain, body, ttl
                ):
                    self._counters.row[SETS] += 1
                    return
            except lmdb.MapFullError:
                pass
        super().set(key, value, timeout, version, stale=stale, jitter=jitter)

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` to a number; return the sum; see `Counting.incr`."""
        name = self._name(key, version)
        if name is not None and type(delta) is int:
            try:
                total = self._environment.write(fast_path_transaction.incr_plain, name, delta)
            except lmdb.MapFullError:
                total = None
            if total is not None:
                return total
        return super().incr(key, delta, version)
