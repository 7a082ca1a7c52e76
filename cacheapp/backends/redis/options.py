"""What `OPTIONS` of a RedisCache may say: ours, django-redis's own, and what is refused and why."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils.module_loading import import_string
from django_redis.client import DefaultClient, HerdClient, ShardClient
from redis.connection import BlockingConnectionPool, ConnectionPool, parse_url

from cacheapp.backends.core.options import COMMON, Option, Reader, boolean, count, seconds
from cacheapp.backends.redis.on_error import read_error_policy

_CACHED_BY_CLIENT = (
    "nothing: redis-py's client-side caching mixes up answers under threads and ignores deadlines"
)
_RESERVED_ARGUMENTS = {  # names in keyword arguments for redis-py whose job is done here
    "cache": _CACHED_BY_CLIENT,
    "cache_config": _CACHED_BY_CLIENT,
    "retry": "nothing: what may be repeated without changing its outcome is repeated by itself",
    "retry_on_timeout": "nothing: a command that timed out may have run",
    "retry_on_error": "nothing: a command whose answer was lost may have run",
    "decode_responses": "nothing: values are bytes",
    "max_connections": "OPTIONS['max_connections'] instead",
    "timeout": "OPTIONS['pool_timeout'] instead",
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a str")
    return value


def _named(check: Callable[[Any], bool], expected: str) -> Reader:
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


def _arguments(value: Any) -> dict[str, Any]:
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


def _instead(expected: str) -> Reader:
    def read(_value: Any) -> Any:
        raise ValueError(expected)

    return read


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
        _named(_is_plain_client, "django_redis.client.DefaultClient, SentinelClient or a subclass"),
        "django_redis.client.DefaultClient",
    ),
    "CONNECTION_FACTORY": Option(
        _named(
            lambda found: isinstance(found, type) and hasattr(found, "get_connection_pool"),
            "django_redis.pool.ConnectionFactory, SentinelConnectionFactory or a subclass",
        ),
        None,
    ),
    "CONNECTION_POOL_CLASS": Option(
        _named(_is_pool, "redis.ConnectionPool or a subclass, which is then made to wait"), None
    ),
    "CONNECTION_POOL_KWARGS": Option(_arguments, {}, secret=True),
    "REDIS_CLIENT_CLASS": Option(_named(callable, "redis.Redis or a subclass"), None),
    "REDIS_CLIENT_KWARGS": Option(_arguments, {}, secret=True),
    "PARSER_CLASS": Option(_named(callable, "a parser of redis-py"), None),
    "USERNAME": Option(_text, None, secret=True),
    "PASSWORD": Option(_text, None, secret=True),
    "SOCKET_TIMEOUT": Option(seconds, 2.0),
    "SOCKET_CONNECT_TIMEOUT": Option(seconds, 1.0),
    "SENTINELS": Option(_sentinels, None),
    "SENTINEL_KWARGS": Option(_arguments, None, secret=True),
}

_OURS: Mapping[str, Option] = {
    "signed": Option(boolean, default=True),  # who can write to the server could else run code here
    "max_connections": Option(count(1), 64),  # per process; made on demand, so a bound, not a cost
    "pool_timeout": Option(seconds, 2.0),
    "on_error": Option(read_error_policy, read_error_policy("raise")),
    "owns_database": Option(boolean, default=False),
}

_kept = _instead("nothing: connections are kept, and close themselves with the process")
_primary = _instead("nothing: only the primary is asked, for replicas lag behind")
_REFUSED: Mapping[str, Option] = {
    "SERIALIZER": Option(_instead("OPTIONS['serializer']: 'pickle', 'json' or 'msgpack'"), None),
    "COMPRESSOR": Option(_instead("OPTIONS['compress_min_bytes']"), None),
    "PICKLE_VERSION": Option(_instead("nothing: the highest protocol is used"), None),
    "IGNORE_EXCEPTIONS": Option(_instead("OPTIONS['on_error']"), None),
    "LOG_IGNORED_EXCEPTIONS": Option(_instead("nothing: they are logged"), None),
    "CLOSE_CONNECTION": Option(_kept, None),
    "REPLICA_READ_ONLY": Option(_primary, None),
    "CACHE_HERD_TIMEOUT": Option(_instead("get_or_set(), which lets one caller compute"), None),
}

OPTIONS: Mapping[str, Option] = {**COMMON, **_OURS, **DJANGO_REDIS, **_REFUSED}


def read_location(location: Any) -> str:
    """Return the one URL; raise `ValueError` with a sentence that holds no password."""
    if isinstance(location, list | tuple) and len(location) == 1:
        location = location[0]
    several = isinstance(location, list | tuple | set) or (
        isinstance(location, str) and "://" in location.partition(",")[2]
    )
    if several:
        raise ValueError(
            "LOCATION names several servers; expected the URL of the primary alone: reads from a "
            "replica would miss writes that were answered already"
        )
    expected = "expected a URL such as 'redis://host:6379/0' or 'unix:///run/redis.sock?db=0'"
    if not isinstance(location, str):
        raise ValueError(f"LOCATION is a {type(location).__name__}; {expected}")
    try:
        asked = parse_url(location)  # type: ignore[no-untyped-call]
    except ValueError:
        asked = None  # its message may quote the password
    if asked is None:
        raise ValueError(f"LOCATION is {redacted(location)!r}; {expected}")
    if wrong := sorted(set(asked) & (set(_RESERVED_ARGUMENTS))):
        raise ValueError(
            f"LOCATION asks for {wrong[0]!r}; expected {_RESERVED_ARGUMENTS[wrong[0]]}"
        )
    return location


def redacted(url: str) -> str:
    """Return the URL without user, password and query; only its scheme where that is unsure."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return url.partition("://")[0] + "://…" if "://" in url else "…"
    if "@" in parts.path + parts.query + parts.fragment or not parts.scheme:
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
