"""The rules of the methods that go beyond Django's API, which are those of django-redis.

A method either does the same on all backends, or raises an error that names what to use.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from django.core.cache.backends.base import BaseCache, default_key_func

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import Store
from cacheapp.errors import ClearRefused

CacheT = TypeVar("CacheT", bound=type)

COLLECTION_METHODS = frozenset(
    [
        *("sadd", "scard", "sdiff", "sdiffstore", "sinter", "sinterstore", "sismember"),
        *("smembers", "smismember", "smove", "spop", "srandmember", "srem", "sscan"),
        *("sscan_iter", "sunion", "sunionstore"),
        *("hset", "hdel", "hlen", "hkeys", "hexists"),
        *("zadd", "zcard", "zcount", "zincrby", "zpopmax", "zpopmin", "zrange"),
        *("zrangebyscore", "zrank", "zrem", "zremrangebyscore", "zrevrange"),
        *("zrevrangebyscore", "zscore"),
    ]
)
"""django-redis's methods on sets, hashes and sorted sets."""

_GENERATORS = frozenset(["sscan_iter"])
_ASYNC_TWINS = {f"a{name}": name for name in COLLECTION_METHODS - _GENERATORS}

ITERSIZE = 1000
"""Keys that one step of `iter_keys` and `delete_pattern` examines."""

_METHODS = (
    *("ttl", "pttl", "expire", "pexpire", "expire_at", "pexpire_at", "persist"),
    *("keys", "iter_keys", "delete_pattern", "lock"),
)
_INSTEAD = {
    "client": "the cache chooses the connection; send commands of your own through "
    "get_redis_connection(alias)",
    "prefix": "the alias has one KEY_PREFIX; use an alias with the other KEY_PREFIX",
}

_STRUCTURES = "it offers no structures of diskcache; use that package itself, in another directory"
_METHODS_ELSEWHERE = {
    # django-redis
    **dict.fromkeys(
        ("client", "get_client"), "it has no server; use the methods of the cache, or a RedisCache"
    ),
    # diskcache
    **dict.fromkeys(("cache", "deque", "index"), _STRUCTURES),
    **dict.fromkeys(
        ("create_tag_index", "drop_tag_index"), "set OPTIONS['tag_index'] of a DiskCache"
    ),
    "cull": "entries are evicted whenever space is needed",
    "directory": "LOCATION names the directory",
    "memoize": "use the decorator cacheapp.cached.cached",
    "pop": "use get(), then delete(); these are two steps",
    "read": "get() returns the whole value",
    # django-cachex
    "clear_all_versions": "clear() removes all versions",
    "expireat": "use expire_at()",
    "flush_db": "clear() does so with OPTIONS['owns_database'] of a RedisCache",
    "pexpireat": "use pexpire_at()",
}
"""Attributes of other caches that no cache has here, and what takes their place."""


def set_if(
    store: Store, final: str, payload: Payload, ttl: float | None, *, nx: bool, xx: bool
) -> bool:
    """Do `set()` if the key is missing (`nx`) or exists (`xx`); return True if that was so."""
    if nx and xx:
        raise ValueError("set() got nx and xx; expected one of them: no key can satisfy both")
    if ttl is not None and ttl <= 0:
        return not store.has(final) if nx else store.delete(final)
    return (store.add if nx else store.set_existing)(final, payload, ttl)


def key_end_of(key_func: Callable[..., Any]) -> str | None:
    """Return what follows the key's own part in a final key; `None` if that is unknown."""
    return "" if key_func is default_key_func else None


def version_prefix(cache: BaseCache, key_end: str | None, method: str, version: int | None) -> str:
    """Return the beginning of every final key of the version; the key's own part follows."""
    if key_end is None:
        raise ClearRefused(
            f"{method}() requires Django's default KEY_FUNCTION: with another one, this "
            "alias's keys cannot be distinguished from others; nothing was done"
        )
    return cache.make_key("", version=version).removesuffix(key_end)


def sync_twin(name: str) -> str | None:
    """Return the collection method whose async twin has this name, or `None`: `sadd` for `asadd`."""
    return _ASYNC_TWINS.get(name)


def missing_method(cache: str, name: str) -> str:
    """Return the message of the `AttributeError` for a method that the cache lacks."""
    found = f"{cache!r} object has no attribute {name!r}"
    if name in COLLECTION_METHODS or sync_twin(name) is not None:
        return (
            f"{found}: sets, hashes and sorted sets need a Redis server; use a RedisCache, or store "
            "a Python set or dict with set()"
        )
    return f"{found}: {_METHODS_ELSEWHERE[name]}" if name in _METHODS_ELSEWHERE else found


def explain_arguments(cls: CacheT) -> CacheT:
    """Make the extended methods of a cache class name what replaces django-redis's other arguments."""
    for name in _METHODS:
        setattr(cls, name, _explaining(getattr(cls, name)))
    return cls


def _explaining(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **_without_foreign(method.__name__, kwargs))

    @functools.wraps(method)
    def wrapped_generator(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from wrapped(self, *args, **kwargs)

    return wrapped_generator if inspect.isgeneratorfunction(method) else wrapped


def _without_foreign(method: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    for argument, instead in _INSTEAD.items():
        if kwargs.get(argument) is not None:
            raise TypeError(f"{method}() does not support {argument!r}: {instead}")
    return {name: value for name, value in kwargs.items() if name not in _INSTEAD}
