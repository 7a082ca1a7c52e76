"""Reads the entries of `CACHES`. An unknown or ill-typed option is an error that names it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cacheapp.backends.core.codec import SERIALIZERS
from cacheapp.typed_values import (
    Reader,
    anything,
    boolean,
    none_or,
    number,
    one_of,
    read_values,
    seconds,
    text,
    whole_number,
)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option. `reader` returns its value, or raises `ValueError(expected)`."""

    reader: Reader
    default: Any
    secret: bool = False
    """Whether its value may contain a password; no message shows such a value."""


COMMON: Mapping[str, Option] = {
    "serializer": Option(one_of(*SERIALIZERS), "pickle"),
    "compress_min_bytes": Option(none_or(whole_number(0)), None),
    "lease_time": Option(seconds, 5.0),
    "lease_wait": Option(seconds, 10.0),
    "refresh": Option(one_of("thread", "inline"), "thread"),
    "signed": Option(boolean, default=False),
}


OPTIONS_ELSEWHERE: Mapping[str, str] = {
    # Django
    "CULL_FREQUENCY": "nothing: entries are evicted one by one, when space is needed",
    "MAX_ENTRIES": "size_limit, in bytes; or maxmemory of the Redis server",
    "db": "the number of the database at the end of LOCATION",
    "parser_class": "PARSER_CLASS",
    "pool_class": "CONNECTION_POOL_CLASS",
    "username": "USERNAME",
    "password": "PASSWORD",
    "socket_timeout": "SOCKET_TIMEOUT",
    "socket_connect_timeout": "SOCKET_CONNECT_TIMEOUT",
    # django-redis
    "CACHE_HERD_TIMEOUT": "nothing: get_or_set() computes once, and the other callers wait",
    "CLOSE_CONNECTION": "nothing: connections are kept until the process ends",
    "COMPRESSOR": "compress_min_bytes",
    "IGNORE_EXCEPTIONS": "on_error",
    "LOG_IGNORED_EXCEPTIONS": "nothing: ignored errors are always logged",
    "PICKLE_VERSION": "nothing: the highest protocol is used",
    "REPLICA_READ_ONLY": "nothing: only the primary is used, because replicas lag behind",
    "SERIALIZER": "serializer: 'pickle', 'json' or 'msgpack'",
    # diskcache
    "disk": "serializer: 'pickle', 'json' or 'msgpack'",
    "disk_pickle_protocol": "nothing: the highest protocol is used",
    "statistics": "nothing: `manage.py cachestats` counts hits and misses",
    "sqlite_auto_vacuum": "nothing: it is set",
    "sqlite_journal_mode": "nothing: it is always wal",
    # django-cachex
    "compressor": "compress_min_bytes",
    "sentinels": "SENTINELS",
    "sentinel_kwargs": "SENTINEL_KWARGS",
    "stampede_prevention": "nothing: get_or_set() computes once, and with stale= early",
    "tracking": "the backend cacheapp.backends.NearCache",
}
"""Options of other cache backends, and what takes their place in a backend that lacks them."""

_PARAMS_ELSEWHERE: Mapping[str, str] = {
    "SHARDS": "OPTIONS['shards']",
    "DATABASE_TIMEOUT": "OPTIONS['database_timeout'], in seconds",
    "MAX_ENTRIES": "OPTIONS['size_limit'], in bytes",
    "CULL_FREQUENCY": OPTIONS_ELSEWHERE["CULL_FREQUENCY"],
}


def read_options(
    found: Any, known: Mapping[str, Option], elsewhere: Mapping[str, str] = OPTIONS_ELSEWHERE
) -> tuple[dict[str, Any], list[str]]:
    """Return the options, with defaults for the others, and one sentence per mistake."""
    defaults = {name: option.default for name, option in known.items()}
    if not isinstance(found, Mapping):
        return defaults, [f"OPTIONS is of type {type(found).__name__}; expected a dict"]
    readers = {name: option.reader for name, option in known.items()}
    secret = {name for name, option in known.items() if option.secret}
    values, mistakes = read_values(found, readers, "an option", secret=secret, elsewhere=elsewhere)
    return defaults | values, [f"OPTIONS[{it.name!r}] {it.error}" for it in mistakes]


def _timeout(value: Any) -> float:
    """Read a number of seconds, or its digits, as Django's base class does."""
    try:
        return int(value) if isinstance(value, str) else number(value)
    except ValueError:
        raise ValueError("a number of seconds") from None


def _version(value: Any) -> int:
    """Read a whole number, or its digits: a key has the same text for both."""
    if isinstance(value, str) and value.isascii() and str(value).removeprefix("-").isdigit():
        value = int(value) if str(int(value)) == value else value  # "01" is another key
    return int(whole_number()(value))


_READ_TIMEOUT = none_or(_timeout)

_PARAMS: Mapping[str, Reader] = {
    "BACKEND": anything,
    "LOCATION": anything,
    "TIMEOUT": _READ_TIMEOUT,
    "OPTIONS": anything,
    "KEY_PREFIX": text,
    "VERSION": _version,
    "KEY_FUNCTION": anything,
    "REVERSE_KEY_FUNCTION": anything,
}


def read_params(params: Mapping[str, Any]) -> list[str]:
    """Return one sentence per mistake in the arguments beside OPTIONS.

    `BaseCache` would silently replace an invalid TIMEOUT with 300.
    """
    _values, mistakes = read_values(
        params, _PARAMS, "a cache argument", elsewhere=_PARAMS_ELSEWHERE
    )
    return [f"{it.name} {it.error}" for it in mistakes]


def timeout_of(params: Mapping[str, Any]) -> Any:
    """Return TIMEOUT as a number or `None`; Django's default is 300 seconds."""
    return _READ_TIMEOUT(params.get("TIMEOUT", 300))


def version_of(params: Mapping[str, Any]) -> int:
    """Return VERSION as a number."""
    return _version(params.get("VERSION", 1))
