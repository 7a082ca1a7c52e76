"""RedisStore: the primitives of `Store` on Redis; each is one command or one script.

What makes every primitive atomic across threads, processes and hosts is Redis itself, which runs
one command or script at a time. All are asked of the primary.

Whether an entry is visible is judged by this process's clock as it stood when the call began: an
answer is then true of a moment between the call and its return.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.counters import BREAKER_OPEN_NOW, BREAKER_OPENED, Counters
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable, Store
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.encoding import (
    decode_key,
    decode_payload,
    encode_key,
    encode_payload,
    escape_glob,
    now_ms,
    ttl_ms,
    ttl_ms_or_0,
)
from cacheapp.backends.redis.executor import CommandExecutor, FailureKind
from cacheapp.backends.redis.listener import Listener
from cacheapp.backends.redis.locks import RedisLocks
from cacheapp.backends.redis.waiting import RedisWaiting
from cacheapp.errors import ValueRefused

_BYTES_AT_ONCE = 2**24
_KEYS_AT_ONCE = 1000  # per command: Redis serves nobody else meanwhile
_READ, _REPEATABLE = FailureKind.READ, FailureKind.REPEATABLE
_version = re.compile(r"-?\d+:")


class RedisStore(RedisWaiting, RedisLocks, Store):
    """One process's store; see `Store` for what each method promises.

    `client` (django-redis's), `_executor` and `_listener` are replaced whole after a fork, so that the
    child never touches an inherited socket or a lock that another thread of its parent held.
    """

    def __init__(self, build_client: Callable[[], Any], name: str) -> None:
        super().__init__()
        self._build_client = build_client
        self._name = name
        self.counters: set[Counters] = set()  # of the aliases that use it; only ever grows
        self._open()

    def _open(self) -> None:
        """Begin with a client of our own; nothing connects before the first command."""
        self.client = self._build_client()
        pool = self.client.get_client(write=True).connection_pool
        self._executor = CommandExecutor(
            pool, CircuitBreaker(self._name, self._count_breaker), self._name
        )
        self._listener = Listener(pool, self._executor.breaker)

    def _count_breaker(self, *, opened: bool) -> None:
        for counters in tuple(self.counters):
            counters.set_gauge(BREAKER_OPEN_NOW, int(opened))
            counters.add(BREAKER_OPENED, int(opened))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}, breaker {self._executor.breaker.state.value}>"

    @property
    def executor(self) -> CommandExecutor:
        """The way to Redis of this process."""
        return self._executor

    # -- one key -----------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        found = self._executor.execute(b"GET", encode_key(key), kind=_READ)
        return None if found is None else decode_payload(found)

    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        if ttl is None:
            self._executor.execute(b"SET", encode_key(key), encode_payload(payload))
        else:
            self._executor.execute(
                b"SET", encode_key(key), encode_payload(payload), b"PX", ttl_ms(ttl)
            )

    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        new = (encode_payload(payload), ttl_ms_or_0(ttl))
        return bool(self._executor.run_script(scripts.ADD, 1, encode_key(key), now_ms(), *new))

    def has(self, key: str) -> bool:
        now_s = clock.wall_s()
        asked = (b"GETRANGE", encode_key(key), 0, lease_format.HEAD_BYTES - 1)
        return _is_visible(self._executor.execute(*asked, kind=_READ), now_s)

    def delete(self, key: str) -> bool:
        return bool(self._executor.run_script(scripts.REMOVE, 1, encode_key(key), now_ms()))

    def touch(self, key: str, ttl: float | None) -> bool:
        asked = (encode_key(key), now_ms(), ttl_ms_or_0(ttl))
        return bool(self._executor.run_script(scripts.TOUCH, 1, *asked))

    def persist(self, key: str) -> bool:
        return bool(self._executor.run_script(scripts.PERSIST, 1, encode_key(key), now_ms()))

    def ttl(self, key: str) -> float | None:
        now_s = clock.wall_s()
        head, left_ms = self._executor.run_script(scripts.TTL, 1, encode_key(key), kind=_READ)
        if not _is_visible(head, now_s):
            return 0.0
        if lease_format.has_soft_deadline(head):
            return lease_format.soft_deadline_s(head) - now_s
        if left_ms == -1:
            return None
        return 0.0 if left_ms < 0 else (left_ms + 1) / 1000  # see `ttl_ms`

    def incr(self, key: str, delta: int) -> int | None:
        try:
            found = self._executor.run_script(
                scripts.INCR, 1, encode_key(key), encode_payload(delta)
            )
        except ValueRefused:  # a delta of thousands of digits
            raise NotCountable from None
        if type(found) is list:
            raise NotCountable(decode_payload(found[0]))
        return None if found is None else int(found)

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        return bool(
            self._executor.run_script(
                scripts.REPLACE,
                1,
                encode_key(key),
                encode_payload(expected),
                encode_payload(payload),
            )
        )

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        asked = (encode_key(key), lease, ttl_ms(ttl))
        found = self._executor.run_script(scripts.LEASE, 1, *asked, kind=_REPEATABLE)
        return None if found is None else decode_payload(found)

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload if `expected` is there; `True` too where the payload is there already.

        `expected` never comes back once it is gone (leases and soft entries have nonces), so a
        repetition whose first answer was lost finds its own work, or somebody else's.
        """
        asked = (
            encode_key(key),
            encode_payload(expected),
            encode_payload(payload),
            ttl_ms_or_0(ttl),
        )
        return bool(self._executor.run_script(scripts.FILL, 1, *asked, kind=_REPEATABLE))

    def discard(self, key: str, expected: Payload) -> bool:
        return bool(
            self._executor.run_script(scripts.DISCARD, 1, encode_key(key), encode_payload(expected))
        )

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        keys = (encode_key(source), encode_key(target))
        return bool(
            self._executor.run_script(
                scripts.MOVE, 2, *keys, encode_payload(expected), encode_payload(payload)
            )
        )

    # -- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        found: dict[str, Payload] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            values = self._executor.execute(b"MGET", *map(encode_key, part), kind=_READ)
            for key, value in zip(part, values, strict=True):
                if value is not None:
                    found[key] = decode_payload(value)
        return found

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads, in atomic batches of a thousand or 16 MiB; return an empty list."""
        ttl_ms = ttl_ms_or_0(ttl)
        for part in _batches_of(payloads):
            keys = [encode_key(key) for key in part]
            self._executor.run_script(scripts.SET_MANY, len(keys), *keys, ttl_ms, *part.values())
        return []

    def delete_many(self, keys: Sequence[str]) -> int:
        return self._remove([encode_key(key) for key in keys])

    def _remove(self, keys: list[bytes]) -> int:
        """Remove the keys; return how many were visible."""
        parts = (
            keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE)
        )
        return sum(
            self._executor.run_script(scripts.REMOVE, len(part), *part, now_ms()) for part in parts
        )

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        return sum(
            self._remove(keys)
            for keys in self._batches(escape_glob(prefix) + pattern, prefix, batch)
        )

    def clear(self, prefix: str) -> None:
        """Remove what has the literal form `prefix:<version>:`, with any whole number for version.

        A glob cannot say "a whole number", hence the second look on this side.
        """
        start = f"{prefix}:"
        for keys in self._batches(escape_glob(start) + "*:*", start, _KEYS_AT_ONCE):
            self._remove(
                [key for key in keys if _version.match(key.decode(errors="replace"), len(start))]
            )

    def flush(self) -> None:
        """Remove every key of the database, whoever wrote it."""
        self._executor.execute(b"FLUSHDB", b"ASYNC")

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        seen: set[bytes] = set()  # SCAN may repeat a key while Redis resizes its table
        for keys in self._batches(escape_glob(prefix) + pattern, prefix, batch):
            new = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(new)
            for part in (new[at : at + _KEYS_AT_ONCE] for at in range(0, len(new), _KEYS_AT_ONCE)):
                visible = self._executor.run_script(
                    scripts.VISIBLE, len(part), *part, now_ms(), kind=_READ
                )
                yield from (decode_key(part[number - 1]) for number in visible)

    def _batches(self, glob: str, prefix: str, batch: int) -> Iterator[list[bytes]]:
        """Yield the keys that match, as SCAN finds them: perhaps twice, perhaps none in a batch."""
        start = encode_key(prefix)
        cursor: Any = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", encode_key(glob), b"COUNT", max(1, batch))
            cursor, keys = self._executor.execute(*scan, kind=_READ)
            if keys:
                yield [key for key in keys if key.startswith(start)]
            if int(cursor) == 0:
                return

    # -- life --------------------------------------------------------------------------------

    def close(self) -> None:
        self._listener.close()
        self.client.get_client(write=True).connection_pool.disconnect(inuse_connections=False)

    def after_fork_in_child(self) -> None:
        self._listener.abandon()
        self._open()


def _is_visible(head: bytes, now_s: float) -> bool:
    """Return whether an entry that begins like this is visible; an empty one is not there."""
    return head != b"" and lease_format.is_visible(head, now_s)


def _batches_of(payloads: Mapping[str, Payload]) -> Iterator[dict[str, Any]]:
    """Yield what goes to the server at once: while it runs a command, it does nothing else."""
    part: dict[str, Any] = {}
    size = 0
    for key, payload in payloads.items():
        value = encode_payload(payload)
        if part and (len(part) == _KEYS_AT_ONCE or size + len(value) > _BYTES_AT_ONCE):
            yield part
            part, size = {}, 0
        part[key] = value
        size += len(value)
    if part:
        yield part
