"""The `OPTIONS` of a RedisCache: our own, django-redis's, and those that are refused with a hint."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils.module_loading import import_string
from django_redis.client import DefaultClient, HerdClient, ShardClient
from django_redis.pool import ConnectionFactory
from redis.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    parse_url,
)

from cacheapp.backends.core.options import COMMON, OPTIONS_ELSEWHERE, Option
from cacheapp.backends.redis.on_error import read_error_policy
from cacheapp.typed_values import Reader, boolean, seconds, text, whole_number

_CACHED_BY_CLIENT = (
    "nothing: redis-py's client-side caching mixes up replies between threads and ignores deadlines"
)
_RESERVED_ARGUMENTS = {  # keyword arguments for redis-py that this backend sets itself
    "cache": _CACHED_BY_CLIENT,
    "cache_config": _CACHED_BY_CLIENT,
    "retry": "nothing: commands that are safe to repeat are repeated already",
    "retry_on_timeout": "nothing: a command that timed out may have run",
    "retry_on_error": "nothing: a command whose reply was lost may have run",
    "decode_responses": "nothing: values are bytes",
    "max_connections": "OPTIONS['max_connections'] instead",
    "timeout": "OPTIONS['pool_timeout'] instead",
}


def _dotted_name(check: Callable[[Any], bool], expected: str) -> Reader:
    """Return a reader of a dotted name of something that passes `check`."""

    def read(value: Any) -> str:
        try:
            found = import_string(value)
        except (ImportError, TypeError, AttributeError, ValueError):
            found = None
        if found is None or not check(found):
            raise ValueError(f"the dotted name of {expected}")
        return str(value)

    return read


def _keyword_arguments(value: Any) -> dict[str, Any]:
    """Read keyword arguments for redis-py."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("a dict of keyword arguments")
    for name in value:
        if name in _RESERVED_ARGUMENTS:
            raise ValueError(f"one without {name!r}: {_RESERVED_ARGUMENTS[name]}")
    return dict(value)


def _sentinels(value: Any) -> list[tuple[str, int]]:
    expected = "a list of pairs such as ('10.0.0.1', 26379)"
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(expected)
    for pair in value:
        if (
            not isinstance(pair, list | tuple)
            or [type(part) for part in pair] != [str, int]
            or not 0 < pair[1] < 2**16
        ):
            raise ValueError(expected)
    return [(host, port) for host, port in value]


def _is_plain_client(found: Any) -> bool:
    return (
        isinstance(found, type)
        and issubclass(found, DefaultClient)
        and not issubclass(found, ShardClient | HerdClient)
    )


def _is_pool(found: Any) -> bool:
    return found is BlockingConnectionPool or (
        isinstance(found, type)
        and issubclass(found, ConnectionPool)
        and not issubclass(found, BlockingConnectionPool)
    )


DJANGO_REDIS: Mapping[str, Option] = {
    "CLIENT_CLASS": Option(
        _dotted_name(
            _is_plain_client, "django_redis.client.DefaultClient, SentinelClient or a subclass"
        ),
        "django_redis.client.DefaultClient",
    ),
    "CONNECTION_FACTORY": Option(
        _dotted_name(
            lambda found: isinstance(found, type) and issubclass(found, ConnectionFactory),
            "django_redis.pool.ConnectionFactory, SentinelConnectionFactory or a subclass",
        ),
        None,
    ),
    "CONNECTION_POOL_CLASS": Option(
        _dotted_name(
            _is_pool,
            "redis.ConnectionPool or a subclass; it is extended to wait for a free connection",
        ),
        None,
    ),
    "CONNECTION_POOL_KWARGS": Option(_keyword_arguments, {}, secret=True),
    "REDIS_CLIENT_CLASS": Option(_dotted_name(callable, "redis.Redis or a subclass"), None),
    "REDIS_CLIENT_KWARGS": Option(_keyword_arguments, {}, secret=True),
    "PARSER_CLASS": Option(_dotted_name(callable, "a parser of redis-py"), None),
    "USERNAME": Option(text, None, secret=True),
    "PASSWORD": Option(text, None, secret=True),
    "SOCKET_TIMEOUT": Option(seconds, 2.0),
    "SOCKET_CONNECT_TIMEOUT": Option(seconds, 1.0),
    "SENTINELS": Option(_sentinels, None),
    "SENTINEL_KWARGS": Option(_keyword_arguments, None, secret=True),
}

_OURS: Mapping[str, Option] = {
    "signed": Option(
        boolean, default=True
    ),  # unsigned, anyone who can write to the server could run code here
    "max_connections": Option(whole_number(1), 64),  # per process; opened on demand
    "pool_timeout": Option(seconds, 2.0),
    "on_error": Option(read_error_policy, read_error_policy("raise")),
    "owns_database": Option(boolean, default=False),
    "reads_django_redis": Option(boolean, default=False),
    "cluster": Option(boolean, default=False),  # `cluster.location.is_cluster` also reads LOCATION
}

OPTIONS: Mapping[str, Option] = {**COMMON, **_OURS, **DJANGO_REDIS}


def _arguments_of_connections() -> dict[str, str]:
    """Return the names that redis-py's connections take, which Django's RedisCache has as options."""
    kinds: tuple[Any, ...] = (Connection, SSLConnection, AbstractConnection)
    names = {name for kind in kinds for name in inspect.signature(kind).parameters}
    return {name: f"OPTIONS['CONNECTION_POOL_KWARGS'][{name!r}]" for name in names - {"kwargs"}}


ELSEWHERE: Mapping[str, str] = {
    **_arguments_of_connections(),
    **dict.fromkeys(("host", "port"), "LOCATION, a URL such as 'redis://host:6379/0'"),
    **_RESERVED_ARGUMENTS,
    **OPTIONS_ELSEWHERE,
}
"""Options of other backends on Redis, and what takes their place here."""


def read_location(location: Any) -> str:
    """Return the one URL; raise `ValueError` with a message that contains no password."""
    if isinstance(location, list | tuple) and len(location) == 1:
        location = location[0]
    several = isinstance(location, list | tuple | set) or (
        isinstance(location, str) and "://" in location.partition(",")[2]
    )
    if several:
        raise ValueError(
            "LOCATION lists several servers; expected only the URL of the primary: reads from a "
            "replica would miss writes that were already acknowledged. For the nodes of a Redis "
            "Cluster, set OPTIONS['cluster'] to True"
        )
    expected = "expected a URL such as 'redis://host:6379/0' or 'unix:///run/redis.sock?db=0'"
    if not isinstance(location, str):
        raise ValueError(f"LOCATION is a {type(location).__name__}; {expected}")
    if "://" not in location:
        raise ValueError(f"LOCATION is not a URL; {expected}")
    try:
        parameters = parse_url(location)  # type: ignore[no-untyped-call]
    except ValueError:
        parameters = None  # its message may quote the password
    if parameters is None:
        raise ValueError(f"LOCATION is {redacted(location)!r}; {expected}")
    if wrong := sorted(set(parameters) & (set(_RESERVED_ARGUMENTS))):
        raise ValueError(f"LOCATION sets {wrong[0]!r}; expected {_RESERVED_ARGUMENTS[wrong[0]]}")
    return location


def redacted(url: str) -> str:
    """Return the URL without user, password and query; only its scheme if they cannot be located."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return url.partition("://")[0] + "://…" if "://" in url else "…"
    if "@" in parts.path + parts.query + parts.fragment or not parts.scheme:
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
