"""RedisStore: the primitives of `Store` on Redis; each is one command or one script.

What makes every primitive atomic across threads, processes and hosts is Redis itself, which runs
one command or script at a time. All are asked of the primary.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from cacheapp.backends import redis_scripts as scripts
from cacheapp.backends.breaker import Breaker
from cacheapp.backends.counters import BREAKER_OPEN_NOW, BREAKER_OPENED, Counters
from cacheapp.backends.redis_link import Link
from cacheapp.backends.store import NotCountable, Payload, Store
from cacheapp.errors import ValueRefused

_KEYS_AT_ONCE = 1000  # per command: Redis serves nobody else meanwhile
_LONGEST_TTL_MS = 2**60  # Redis adds it to the clock, in 64 bits
_integer = re.compile(rb"-?[1-9][0-9]*|0").fullmatch
_glob_special = re.compile(r"[*?\[\]\\]")
_version = re.compile(r"-?\d+:")


class RedisStore(Store):
    """One process's store; see `Store` for what each method promises.

    `client` (django-redis's) and `_link` are replaced whole after a fork, so that the child never
    touches an inherited socket or a lock that another thread of its parent held.
    """

    def __init__(self, build_client: Callable[[], Any], name: str) -> None:
        self._build_client = build_client
        self._name = name
        self.counters: set[Counters] = set()  # of the aliases that use it; only ever grows
        self._open()

    def _open(self) -> None:
        """Begin with a client of our own; nothing connects before the first command."""
        self.client = self._build_client()
        pool = self.client.get_client(write=True).connection_pool
        self._link = Link(pool, Breaker(self._name, self._count_breaker), self._name)

    def _count_breaker(self, *, opened: bool) -> None:
        for counters in tuple(self.counters):
            counters.put(BREAKER_OPEN_NOW, int(opened))
            counters.add(BREAKER_OPENED, int(opened))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}, breaker {self._link.breaker.state.value}>"

    @property
    def link(self) -> Link:
        """The way to Redis of this process."""
        return self._link

    # -- one key -----------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        found = self._link.ask(b"GET", _raw_key(key), repeatable=True)
        return None if found is None else _payload(found)

    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        if ttl is None:
            self._link.ask(b"SET", _raw_key(key), _raw(payload))
        else:
            self._link.ask(b"SET", _raw_key(key), _raw(payload), b"PX", _ms(ttl))

    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        if ttl is None:
            answer = self._link.ask(b"SET", _raw_key(key), _raw(payload), b"NX")
        else:
            answer = self._link.ask(b"SET", _raw_key(key), _raw(payload), b"PX", _ms(ttl), b"NX")
        return answer is not None

    def has(self, key: str) -> bool:
        return bool(self._link.ask(b"EXISTS", _raw_key(key), repeatable=True))

    def delete(self, key: str) -> bool:
        return bool(self._link.ask(b"UNLINK", _raw_key(key)))

    def touch(self, key: str, ttl: float | None) -> bool:
        if ttl is None:
            return bool(self._link.run(scripts.TOUCH_FOREVER, 1, _raw_key(key)))
        return bool(self._link.ask(b"PEXPIRE", _raw_key(key), _ms(ttl)))

    def persist(self, key: str) -> bool:
        return bool(self._link.ask(b"PERSIST", _raw_key(key)))

    def ttl(self, key: str) -> float | None:
        left_ms: int = self._link.ask(b"PTTL", _raw_key(key), repeatable=True)
        if left_ms == -1:
            return None
        return 0.0 if left_ms < 0 else (left_ms + 1) / 1000  # see `_ms`

    def incr(self, key: str, delta: int) -> int | None:
        try:
            found = self._link.run(scripts.INCR, 1, _raw_key(key), _raw(delta))
        except ValueRefused:  # a delta of thousands of digits
            raise NotCountable from None
        if type(found) is list:
            raise NotCountable(_payload(found[0]))
        return None if found is None else int(found)

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        return bool(
            self._link.run(scripts.REPLACE, 1, _raw_key(key), _raw(expected), _raw(payload))
        )

    def discard(self, key: str, expected: Payload) -> bool:
        return bool(self._link.run(scripts.DISCARD, 1, _raw_key(key), _raw(expected)))

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        keys = (_raw_key(source), _raw_key(target))
        return bool(self._link.run(scripts.MOVE, 2, *keys, _raw(expected), _raw(payload)))

    # -- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        found: dict[str, Payload] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            values = self._link.ask(b"MGET", *map(_raw_key, part), repeatable=True)
            for key, value in zip(part, values, strict=True):
                if value is not None:
                    found[key] = _payload(value)
        return found

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads, in atomic batches of a thousand; return an empty list."""
        ttl_ms = 0 if ttl is None else _ms(ttl)
        entries = iter(payloads.items())
        while part := list(islice(entries, _KEYS_AT_ONCE)):
            keys = [_raw_key(key) for key, _ in part]
            values = [_raw(payload) for _, payload in part]
            self._link.run(scripts.SET_MANY, len(keys), *keys, ttl_ms, *values)
        return []

    def delete_many(self, keys: Sequence[str]) -> int:
        return self._unlink([_raw_key(key) for key in keys])

    def _unlink(self, keys: list[bytes]) -> int:
        return sum(
            self._link.ask(b"UNLINK", *keys[start : start + _KEYS_AT_ONCE])
            for start in range(0, len(keys), _KEYS_AT_ONCE)
        )

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        return sum(
            self._unlink(keys)
            for keys in self._batches(_glob_escaped(prefix) + pattern, prefix, batch)
        )

    def clear(self, prefix: str) -> None:
        """Remove what has the literal form `prefix:<version>:`, with any whole number for version.

        A glob cannot say "a whole number", hence the second look on this side.
        """
        start = f"{prefix}:"
        for keys in self._batches(_glob_escaped(start) + "*:*", start, _KEYS_AT_ONCE):
            self._unlink(
                [key for key in keys if _version.match(key.decode(errors="replace"), len(start))]
            )

    def flush(self) -> None:
        """Remove every key of the database, whoever wrote it."""
        self._link.ask(b"FLUSHDB", b"ASYNC")

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        seen: set[bytes] = set()  # SCAN may repeat a key while Redis resizes its table
        for keys in self._batches(_glob_escaped(prefix) + pattern, prefix, batch):
            for key in keys:
                if key not in seen:
                    seen.add(key)
                    yield _text_key(key)

    def _batches(self, glob: str, prefix: str, batch: int) -> Iterator[list[bytes]]:
        """Yield the keys that match, as SCAN finds them: perhaps twice, perhaps none in a batch."""
        start = _raw_key(prefix)
        cursor: Any = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", _raw_key(glob), b"COUNT", batch)
            cursor, keys = self._link.ask(*scan, repeatable=True)
            if keys:
                yield [key for key in keys if key.startswith(start)]
            if int(cursor) == 0:
                return

    # -- life --------------------------------------------------------------------------------

    def close(self) -> None:
        self.client.get_client(write=True).connection_pool.disconnect(inuse_connections=False)

    def after_fork_in_child(self) -> None:
        self._open()


def _raw_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _text_key(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def _raw(payload: Payload) -> bytes:
    if type(payload) is bytes:
        return payload
    try:
        return str(payload).encode()
    except ValueError as exc:  # Python refuses to write out thousands of digits
        raise ValueRefused(f"Redis keeps integers as decimals: {exc}") from exc


def _payload(raw: bytes) -> Payload:
    """Return an int for what `_raw` writes for ints, and for nothing else that `int` accepts."""
    if raw[:1] < b":" and _integer(raw):
        try:
            return int(raw)
        except ValueError:
            pass  # thousands of digits: nothing that `_raw` wrote
    return raw


def _ms(ttl: float) -> int:
    """Return the TTL in Redis's milliseconds: one less, for Redis serves an entry through its last.

    It keeps the deadline in whole milliseconds and expires what is older than that; without the
    subtraction an answer could come up to 1 ms late. A TTL below 2 ms becomes Redis's shortest.
    """
    return max(1, int(min(ttl * 1000, _LONGEST_TTL_MS)) - 1)


def _glob_escaped(text: str) -> str:
    return _glob_special.sub(r"\\\g<0>", text)
