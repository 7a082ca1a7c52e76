"""RedisStore: the primitives of `Store` on Redis; each is one command or one script.

Redis runs one command or script at a time, which makes every primitive atomic across threads,
processes and machines. All commands go to the primary.

Whether an entry is visible is decided by this process's clock at the begin of the call, so a result
was true at a moment between the call and its return.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from redis.exceptions import NoPermissionError

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.counters import BREAKER_OPEN_NOW, BREAKER_OPENED, Counters
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable, Store
from cacheapp.backends.local import forks
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.batches import MAX_BATCH_KEYS, batches_of, in_batches, run_each
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.connection_pool import outside_of
from cacheapp.backends.redis.encoding import (
    check_size,
    decode_key,
    decode_payload,
    encode_key,
    encode_payload,
    escape_glob,
    now_ms,
    ttl_ms,
    ttl_ms_or_0,
)
from cacheapp.backends.redis.executor import CommandExecutor, Executor, FailureKind
from cacheapp.backends.redis.listener import (
    Listener,
    Subscription,
    await_until_done,
    wait_until_done,
)
from cacheapp.backends.redis.locks import RedisLocks
from cacheapp.errors import StoreUnavailable, ValueRefused

_POLL_EVERY_S = 0.25
_RESUBSCRIBE_S = 1.0  # a wait that could not subscribe polls so long; its caller then waits again
_CHANNEL = scripts.WAKE_CHANNEL.encode()
_READ, _REPEATABLE = FailureKind.READ, FailureKind.REPEATABLE
_version = re.compile(r"-?\d+:")


class RedisStore(Store):
    """One process's store; `Store` documents what each method promises.

    `client` (django-redis's), `executor`, `_listener` and `_locks` are replaced as a whole after a
    fork, so that the child never uses an inherited socket, or a lock that another thread of its
    parent held. The properties also notice a fork by C code.
    """

    def __init__(self, build_client: Callable[[], Any], name: str) -> None:
        super().__init__()
        self._build_client = build_client
        self._name = name
        self.counters: set[Counters] = set()  # of the aliases that use it; never shrinks
        self._open()

    def _open(self) -> None:
        """Create a client; it connects with its first command."""
        self._own_client = self._build_client()
        pool = self._own_client.get_client(write=True).connection_pool
        breaker = CircuitBreaker(self._name, self._count_breaker)
        self._own_executor: Executor = CommandExecutor(pool, breaker, self._name)
        self._own_listener = Listener(partial(outside_of, pool), lambda: breaker.closed)
        self._own_locks = RedisLocks(self._own_executor)
        self._knows_msetex = True  # until the server says otherwise

    def _count_breaker(self, *, opened: bool) -> None:
        for counters in tuple(self.counters):
            counters.set_gauge(BREAKER_OPEN_NOW, int(opened))
            counters.add(BREAKER_OPENED, int(opened))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}, {self._own_executor.condition}>"

    @property
    def client(self) -> Any:
        """django-redis's client, whose keys have no prefix."""
        if not forks.mark[0]:
            forks.recover()
        return self._own_client

    @property
    def executor(self) -> Executor:
        """What sends this process's commands."""
        if not forks.mark[0]:
            forks.recover()
        return self._own_executor

    @property
    def _listener(self) -> Listener:
        if not forks.mark[0]:
            forks.recover()
        return self._own_listener

    @property
    def _locks(self) -> RedisLocks:
        if not forks.mark[0]:
            forks.recover()
        return self._own_locks

    # -- one key -----------------------------------------------------------------------------

    def get(self, key: str) -> Payload | None:
        found = self.executor.execute(b"GET", encode_key(key), kind=_READ)
        return None if found is None else decode_payload(found)

    def check_size(self, length: int) -> None:
        check_size(length)

    def set(self, key: str, payload: Payload, ttl: float | None) -> None:
        if ttl is None:
            self.executor.execute(b"SET", encode_key(key), encode_payload(payload))
        else:
            self.executor.execute(
                b"SET", encode_key(key), encode_payload(payload), b"PX", b"%d" % ttl_ms(ttl)
            )

    def add(self, key: str, payload: Payload, ttl: float | None) -> bool:
        new = (encode_payload(payload), ttl_ms_or_0(ttl))
        return bool(self.executor.run_script(scripts.ADD, 1, encode_key(key), now_ms(), *new))

    def set_existing(self, key: str, payload: Payload, ttl: float | None) -> bool:
        new = (encode_payload(payload), ttl_ms_or_0(ttl))
        return bool(
            self.executor.run_script(scripts.SET_EXISTING, 1, encode_key(key), now_ms(), *new)
        )

    def has(self, key: str) -> bool:
        args = (encode_key(key), now_ms())
        return bool(self.executor.run_script(scripts.VISIBLE, 1, *args, kind=_READ))

    def delete(self, key: str) -> bool:
        return bool(self.executor.run_script(scripts.REMOVE, 1, encode_key(key), now_ms()))

    def touch(self, key: str, ttl: float | None) -> bool:
        args = (encode_key(key), now_ms(), ttl_ms_or_0(ttl))
        return bool(self.executor.run_script(scripts.TOUCH, 1, *args))

    def persist(self, key: str) -> bool:
        return bool(self.executor.run_script(scripts.PERSIST, 1, encode_key(key), now_ms()))

    def ttl(self, key: str) -> float | None:
        now_s = clock.wall_s()
        head, left_ms = self.executor.run_script(scripts.TTL, 1, encode_key(key), kind=_READ)
        if head and not lease_format.is_visible(head, now_s):
            return 0.0
        if lease_format.has_soft_deadline(head):
            return lease_format.soft_deadline_s(head) - now_s
        if left_ms == -1:
            return None
        return 0.0 if left_ms < 0 else (left_ms + 1) / 1000  # see `ttl_ms`

    def incr(self, key: str, delta: int) -> int | None:
        try:
            found = self.executor.run_script(
                scripts.INCR, 1, encode_key(key), encode_payload(delta)
            )
        except ValueRefused:  # a delta of thousands of digits
            raise NotCountable from None
        if type(found) is list:
            raise NotCountable(decode_payload(found[0]))
        return None if found is None else int(found)

    def replace(self, key: str, expected: Payload, payload: Payload) -> bool:
        return bool(
            self.executor.run_script(
                scripts.REPLACE,
                1,
                encode_key(key),
                encode_payload(expected),
                encode_payload(payload),
            )
        )

    def lease(self, key: str, lease: bytes, ttl: float) -> Payload | None:
        args = (encode_key(key), lease, ttl_ms(ttl))
        found = self.executor.run_script(scripts.LEASE, 1, *args, kind=_REPEATABLE)
        return None if found is None else decode_payload(found)

    def fill(self, key: str, expected: Payload, payload: Payload, ttl: float | None) -> bool:
        """Store the payload over `expected`; return True also if the payload is already stored.

        Leases and soft entries contain nonces, so `expected` never reappears once it is gone: a
        repetition after a lost reply finds its own payload, or that of another caller.
        """
        args = (
            encode_key(key),
            encode_payload(expected),
            encode_payload(payload),
            ttl_ms_or_0(ttl),
        )
        return bool(self.executor.run_script(scripts.FILL, 1, *args, kind=_REPEATABLE))

    def discard(self, key: str, expected: Payload) -> bool:
        return bool(
            self.executor.run_script(scripts.DISCARD, 1, encode_key(key), encode_payload(expected))
        )

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        keys = (encode_key(source), encode_key(target))
        return bool(
            self.executor.run_script(
                scripts.MOVE, 2, *keys, encode_payload(expected), encode_payload(payload)
            )
        )

    # -- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        found: dict[str, Payload] = {}
        for part in in_batches(keys):
            values = self.executor.execute(b"MGET", *map(encode_key, part), kind=_READ)
            for key, value in zip(part, values, strict=True):
                if value is not None:
                    found[key] = decode_payload(value)
        return found

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads, in atomic batches of 1,000 keys or 16 MiB; return an empty list."""
        run_each(batches_of(payloads), lambda part: self._set_batch(part, ttl), "stored")
        return []

    def _set_batch(self, part: Mapping[str, Any], ttl: float | None) -> int:
        pairs = {encode_key(key): value for key, value in part.items()}
        if not (self._knows_msetex and self._set_by_command(pairs, ttl)):
            self.executor.run_script(
                scripts.SET_MANY, len(pairs), *pairs, ttl_ms_or_0(ttl), *pairs.values()
            )
        return len(pairs)

    def _set_by_command(self, pairs: Mapping[bytes, bytes], ttl: float | None) -> bool:
        """Store all pairs by MSETEX (Redis 8.4, Valkey 9.1); return False if the server lacks it.

        It takes a quarter of the time that the script takes.
        """
        deadline = () if ttl is None else (b"PX", b"%d" % ttl_ms(ttl))
        flat = itertools.chain.from_iterable(pairs.items())
        try:
            self.executor.execute(b"MSETEX", b"%d" % len(pairs), *flat, *deadline)
        except StoreUnavailable as exc:
            refusal = exc.__cause__
            unknown = isinstance(refusal, NoPermissionError) or "unknown command" in str(refusal)
            if not unknown:
                raise
            self._knows_msetex = False
        return self._knows_msetex

    def delete_many(self, keys: Sequence[str]) -> int:
        return self._remove([encode_key(key) for key in keys])

    def _remove(self, keys: list[bytes]) -> int:
        """Remove the keys; return how many of them were visible."""
        return run_each(in_batches(keys), self._remove_batch, "removed")

    def _remove_batch(self, keys: Sequence[bytes]) -> int:
        return int(self.executor.run_script(scripts.REMOVE, len(keys), *keys, now_ms()))

    def remove(self, prefix: str, pattern: str, batch: int) -> int:
        found = self._batches(escape_glob(prefix) + pattern, prefix, batch)
        return run_each(found, self._remove, "removed")

    def clear(self, prefix: str) -> None:
        """Remove the keys that begin with `prefix:<version>:`, for any integer version.

        A glob cannot express "an integer", so the keys are checked again here.
        """
        start = f"{prefix}:"
        found = (
            [key for key in keys if _version.match(key.decode(errors="replace"), len(start))]
            for keys in self._batches(escape_glob(start) + "*:*", start, MAX_BATCH_KEYS)
        )
        run_each(found, self._remove, "removed")

    def flush(self) -> None:
        """Remove every key of the database, including those of other applications."""
        self.executor.execute(b"FLUSHDB", b"ASYNC")

    def scan(self, prefix: str, pattern: str, batch: int) -> Iterator[str]:
        seen: set[bytes] = set()  # SCAN may return a key twice while Redis resizes its table
        for keys in self._batches(escape_glob(prefix) + pattern, prefix, batch):
            new = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(new)
            for part in in_batches(new):
                yield from map(decode_key, self._visible(part))

    def _visible(self, keys: Sequence[bytes]) -> Iterator[bytes]:
        """Yield those of the keys that exist."""
        found = self.executor.run_script(scripts.VISIBLE, len(keys), *keys, now_ms(), kind=_READ)
        yield from (keys[number - 1] for number in found)

    def _batches(self, glob: str, prefix: str, batch: int) -> Iterator[list[bytes]]:
        """Yield the matching keys as SCAN returns them: possibly repeated, possibly none in a batch."""
        start = encode_key(prefix)
        cursor: Any = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", encode_key(glob), b"COUNT", max(1, batch))
            cursor, keys = self.executor.execute(*scan, kind=_READ)
            if keys:
                yield [key for key in keys if key.startswith(start)]
            if int(cursor) == 0:
                return

    # -- waiting for a change ----------------------------------------------------------------

    # Every script that ends a lease also publishes to the key's channel, in the same atomic step. A
    # wait subscribes before it reads the key, so no change between the two is missed. Plain
    # commands (SET, FLUSHDB) and leases that expire publish nothing: polling finds those.

    def _watch(self, key: str, seen: Payload, within_s: float) -> None:
        deadline_s = clock.monotonic_s() + within_s
        with self._listener.subscribe(_CHANNEL + encode_key(key)) as subscription:
            confirmed = subscription.confirmed
            if wait_until_done(confirmed, min(_POLL_EVERY_S, within_s)) and confirmed.result():
                if self.get(key) == seen:
                    with self._polling(key, seen, subscription):
                        wait_until_done(subscription.notified, deadline_s - clock.monotonic_s())
                return
        super()._watch(key, seen, _time_to_poll(deadline_s))

    async def _awatch(self, key: str, seen: Payload, within_s: float) -> None:
        deadline_s = clock.monotonic_s() + within_s
        with self._listener.subscribe(_CHANNEL + encode_key(key)) as subscription:
            confirmed = subscription.confirmed
            if (
                await await_until_done(confirmed, min(_POLL_EVERY_S, within_s))
                and confirmed.result()
            ):
                if await in_thread(self.get, key) == seen:
                    with self._polling(key, seen, subscription):
                        await await_until_done(
                            subscription.notified, deadline_s - clock.monotonic_s()
                        )
                return
        await super()._awatch(key, seen, _time_to_poll(deadline_s))

    @contextlib.contextmanager
    def _polling(self, key: str, seen: Payload, subscription: Subscription) -> Iterator[None]:
        """Poll the key during the block, in one command with all others, for unpublished changes."""
        end = self._poller.add(key, seen, subscription.notify, _POLL_EVERY_S)
        try:
            yield
        finally:
            end()

    # -- locks -------------------------------------------------------------------------------

    def acquire_lock(self, name: str, ttl: float | None, note: Callable[[int], None]) -> int | None:
        return self._locks.acquire(name, ttl, note)

    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        return self._locks.renew(name, token, ttl)

    def release_lock(self, name: str, token: int) -> bool:
        return self._locks.release(name, token)

    def lock_token(self, name: str) -> int | None:
        return self._locks.token(name)

    # -- the process ---------------------------------------------------------------------------

    def close(self) -> None:
        self._listener.close()
        self._own_executor.close()

    def after_fork_in_child(self) -> None:
        self._own_listener.close_in_child()
        self._open()


def _time_to_poll(deadline_s: float) -> float:
    return max(0.0, min(_RESUBSCRIBE_S, deadline_s - clock.monotonic_s()))
