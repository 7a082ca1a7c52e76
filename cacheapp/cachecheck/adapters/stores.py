"""Adapters of clients of a store: redis-py and valkey-py, pymemcache, diskcache, Gunicorn's stash."""

import sys
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

from cacheapp.cachecheck.adapters.base import Adapter, decode, encode, encode_all, without


class RedisAdapter(Adapter):
    """`redis.Redis` or `valkey.Valkey`. Numbers are stored as text, as `INCRBY` needs them."""

    creates_counters = True

    def get(self, key: str, default: Any = None) -> Any:
        """GET."""
        value = self.subject.get(key)
        return default if value is None else decode(value)

    def set(self, key: str, value: Any, timeout: float) -> bool:
        """SET … PX."""
        return bool(self.subject.set(key, encode(value), px=int(timeout * 1000)))

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """SET … PX NX."""
        return bool(self.subject.set(key, encode(value), px=int(timeout * 1000), nx=True))

    def delete(self, key: str) -> bool:
        """DEL."""
        return bool(self.subject.delete(key))

    def touch(self, key: str, timeout: float) -> bool:
        """PEXPIRE."""
        return bool(self.subject.pexpire(key, int(timeout * 1000)))

    def incr(self, key: str, delta: int = 1) -> int:
        """INCRBY."""
        return int(self.subject.incrby(key, delta))

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """MGET."""
        values = map(decode, self.subject.mget(list(keys)))
        return without(dict(zip(keys, values, strict=True)))

    def set_many(self, values: Mapping[str, Any], timeout: float) -> None:
        """SET … PX of each, in a transaction."""
        with self.subject.pipeline(transaction=True) as pipe:
            for key, value in values.items():
                pipe.set(key, encode(value), px=int(timeout * 1000))
            pipe.execute()

    def lock(self, name: str, timeout: float) -> Any:
        """Return the library's own lock."""
        return self.subject.lock(name, timeout=timeout)

    def clear(self) -> None:
        """FLUSHDB."""
        self.subject.flushdb()


class MemcacheAdapter(Adapter):
    """A client of pymemcache. Its plain `Client` is for one thread: use `PooledClient`."""

    def get(self, key: str, default: Any = None) -> Any:
        """Read."""
        value = self.subject.get(key)
        return default if value is None else decode(value)

    def set(self, key: str, value: Any, timeout: float) -> bool:
        """Write, and wait for the answer."""
        return bool(self.subject.set(key, encode(value), expire=ceil(timeout), noreply=False))

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """Write if absent."""
        return bool(self.subject.add(key, encode(value), expire=ceil(timeout), noreply=False))

    def delete(self, key: str) -> bool:
        """Remove."""
        return bool(self.subject.delete(key, noreply=False))

    def touch(self, key: str, timeout: float) -> bool:
        """Change the timeout."""
        return bool(self.subject.touch(key, expire=ceil(timeout), noreply=False))

    def incr(self, key: str, delta: int = 1) -> int:
        """Add to a number. `ValueError`: no such key."""
        total = self.subject.incr(key, delta, noreply=False)
        if total is None:
            raise ValueError(key)
        return int(total)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read several."""
        return {key: decode(value) for key, value in self.subject.get_many(list(keys)).items()}

    def set_many(self, values: Mapping[str, Any], timeout: float) -> Any:
        """Write several; return the keys that failed."""
        return self.subject.set_many(encode_all(values), expire=ceil(timeout), noreply=False)

    def clear(self) -> None:
        """Remove everything."""
        self.subject.flush_all(noreply=False)


class DiskcacheAdapter(Adapter):
    """`diskcache.Cache` or `FanoutCache`, also of `diskcache_community`."""

    def get(self, key: str, default: Any = None) -> Any:
        """Read; a busy FanoutCache answers with the default."""
        return self.subject.get(key, default)

    def set(self, key: str, value: Any, timeout: float) -> bool:
        """Write."""
        return bool(self.subject.set(key, value, expire=timeout))

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """Write if absent."""
        return bool(self.subject.add(key, value, expire=timeout))

    def delete(self, key: str) -> bool:
        """Remove."""
        return bool(self.subject.delete(key))

    def touch(self, key: str, timeout: float) -> bool:
        """Change the timeout."""
        return bool(self.subject.touch(key, expire=timeout))

    def incr(self, key: str, delta: int = 1) -> Any:
        """Add to a number. `ValueError`: no such key."""
        return self._count(self.subject.incr, key, delta)

    def decr(self, key: str, delta: int = 1) -> Any:
        """Subtract from a number. `ValueError`: no such key."""
        return self._count(self.subject.decr, key, delta)

    def _count(self, call: Callable[..., Any], key: str, delta: int) -> Any:
        try:
            return call(key, delta, default=None)
        except KeyError:
            raise ValueError(key) from None

    def lock(self, name: str, timeout: float) -> "DiskcacheLock":
        """Return the library's own lock."""
        library = sys.modules[type(self.subject).__module__.partition(".")[0]]
        return DiskcacheLock(library.Lock(self.subject, name, expire=timeout))

    def clear(self) -> None:
        """Remove everything."""
        self.subject.clear()


class DiskcacheLock:
    """`diskcache.Lock`, which always blocks."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.release = lock.release

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait for the lock."""
        del blocking
        self._lock.acquire()
        return True


class StashAdapter(Adapter):
    """A table of Gunicorn's `dirty.stash`: `StashTable`, as `StashClient(path).table(name)` returns it.

    A table has no timeouts, no `add` and no counters.
    """

    timeouts = False

    def get(self, key: str, default: Any = None) -> Any:
        """Read. Gunicorn 27 raises a general error for a missing key."""
        try:
            return self.subject.get(key, default)
        except Exception as exc:
            if "not found" in str(exc):
                return default
            raise

    def set(self, key: str, value: Any, timeout: float) -> None:
        """Write."""
        del timeout
        self.subject[key] = value

    def delete(self, key: str) -> bool:
        """Remove."""
        try:
            del self.subject[key]
        except KeyError:
            return False
        return True

    def clear(self) -> None:
        """Remove everything."""
        self.subject.clear()
