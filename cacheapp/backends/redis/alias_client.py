"""`RedisCache.client`, and the methods on sets, hashes and sorted sets: always this alias's keys.

django-redis's own client object would use an empty prefix and version 1 here, and its `clear` empties
the database. This one offers what is right for the alias, and refuses the rest by name.
"""

import copy
import sys
from collections.abc import Callable
from typing import Any

import redis
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisClusterException

from cacheapp.backends.core.async_methods import in_thread, where_django_would
from cacheapp.backends.core.codec import Codec, Rejected
from cacheapp.backends.core.extended_api import COLLECTION_METHODS
from cacheapp.backends.core.plain_data import are_plain
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.redis.encoding import decode_payload, encode_payload
from cacheapp.errors import OutcomeUnknown, StoreUnavailable

_OF_THE_CACHE = COLLECTION_METHODS | {
    *("get", "get_many", "set", "set_many", "add", "touch", "delete", "delete_many", "has_key"),
    *("incr", "decr", "incr_version", "ttl", "pttl", "expire", "pexpire", "expire_at"),
    *("pexpire_at", "persist", "keys", "iter_keys", "delete_pattern", "lock"),
}
_CONNECTIONS_KEPT = "the cache keeps its connections; they need no call"
_SIGNED = "values are signed for their key; use get() and set() of the cache"
_INSTEAD = {
    "clear": "it would empty the database; use clear() of the cache for the keys of this alias, or "
    "get_client().flushdb() for all",
    "close": _CONNECTIONS_KEPT,
    "connect": _CONNECTIONS_KEPT,
    "disconnect": _CONNECTIONS_KEPT,
    "do_close_clients": _CONNECTIONS_KEPT,
    "decode": _SIGNED,
    "encode": _SIGNED,
    "get_client_with_index": "there is one client; use get_client()",
    "get_next_client_index": "there is one client; use get_client()",
    "make_pattern": "keys() and iter_keys() of the cache take a pattern without the prefix",
}
_LOST = (redis.ConnectionError, redis.TimeoutError)
_OTHERWISE = "use get_client(), whose commands take final keys: make_key(key) returns one"


class AliasClient:
    """What `cache.client` offers; the methods of the cache have the cache's own arguments."""

    def __init__(self, cache: SharedCache, get_client: Callable[..., Any]) -> None:
        self._cache = cache
        self.get_client = get_client
        """Return redis-py's client. Its commands take final keys, and bytes as they are stored."""

    def make_key(self, key: Any, version: int | None = None, prefix: str | None = None) -> str:
        """Return the final key of a key of this alias; or with another prefix."""
        if prefix is None:
            return self._cache.make_key(key, version=version)
        found = self._cache.version if version is None else version
        return str(self._cache.key_func(key, prefix, found))

    def __contains__(self, key: Any) -> bool:
        return self._cache.has_key(key)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_CACHE:
            return getattr(self._cache, name)
        instead = _INSTEAD.get(name, _OTHERWISE)
        raise AttributeError(f"RedisCache.client does not offer {name!r}: {instead}")


def collection_method(
    cache: SharedCache, client: Callable[[], Any], codec: Codec, name: str
) -> Callable[..., Any]:
    """Return django-redis's method of this name, with the keys, values and errors of the cache.

    `client` returns django-redis's client. A member has the same bytes in every collection of the
    alias, so that collections can be compared; it is signed for all of them.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        own = copy.copy(client())  # with the same connections
        own._backend = cache  # noqa: SLF001 (its keys come from there)
        own.encode, own.decode = _member_encoder(cache, codec)
        handled_before = sys.exception()
        try:
            return getattr(own, name)(*args, **kwargs)
        except RedisClusterException as exc:
            # redis-py asks for the slots again while it handles the loss of a reply.
            lost = exc.__context__
            if isinstance(lost, _LOST) and lost is not handled_before:
                raise _unknown(name, lost) from exc
            raise StoreUnavailable(f"{name} was not executed: {exc}") from exc
        except (ConnectionInterrupted, redis.RedisError, OSError) as exc:
            cause = exc.__cause__ if isinstance(exc, ConnectionInterrupted) else exc
            if isinstance(cause, redis.ResponseError):
                raise StoreUnavailable(
                    f"Redis refused {name}: {cause}; nothing was changed"
                ) from exc
            raise _unknown(name, cause) from exc

    call.__name__ = name
    return call


def _unknown(name: str, cause: BaseException | None) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{name} failed ({type(cause).__name__}: {cause}): it may have been executed"
    )


def async_collection_method(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the async twin of a collection method.

    It runs in a thread: where Django's own backends would run it if serializing an argument may run
    other code.
    """

    async def call(*args: Any, **kwargs: Any) -> Any:
        run = in_thread if are_plain([*args, *kwargs.values()]) else where_django_would
        return await run(method, *args, **kwargs)

    call.__name__ = name
    return call


def _member_encoder(
    cache: SharedCache, codec: Codec
) -> tuple[Callable[..., bytes], Callable[[Any], Any]]:
    signed_for = f"{cache.key_prefix}\x1f:collections"  # no key of a value has this form

    def encode(value: Any, *, allow_int: bool = True) -> bytes:
        del allow_int  # an integer is stored in decimal everywhere
        return encode_payload(codec.encode(signed_for, value))

    def decode(stored: Any) -> Any:
        try:
            return codec.decode(signed_for, decode_payload(stored))
        except Rejected as exc:
            raise ValueError(
                f"a member was not written by this cache ({exc}); read it with "
                "get_redis_connection(alias)"
            ) from exc

    return encode, decode
