"""`OPTIONS["on_error"]`: which errors of the store RedisCache raises, and which it replaces by a result.

A failed read can be reported as a miss. A failed `add`, `incr` or `incr_version` has no truthful
result, because both "stored" and "not stored" may be false, so these always raise. A swallowed
write leaves the old value in the cache, so writes raise by default.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from cacheapp.backends.core.counters import ERRORS_RAISED, ERRORS_SWALLOWED
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.operation import note_error, note_miss
from cacheapp.backends.core.run_once import RunOnce
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local.interruptions import raised_by_handler
from cacheapp.errors import STORE_FAILED

logger = logging.getLogger(__name__)
_log_throttle = LogThrottle()

Group = Literal["read", "set", "touch", "delete"]
Method = Callable[..., Any]
MethodT = TypeVar("MethodT", bound=Method)
CacheT = TypeVar("CacheT", bound=SharedCache)


@dataclasses.dataclass(frozen=True)
class ErrorPolicy:
    """Whether errors of the store are swallowed, per group of operations."""

    read: bool = False
    """`get`, `get_many`, `has_key`, `ttl`, `keys` report a miss; `get_or_set` computes the value."""

    set: bool = False
    """`set` does nothing; `set_many` returns all keys as not stored."""

    touch: bool = False
    """`touch`, `expire`, `persist` return `False`."""

    delete: bool = False
    """`delete` returns `False`, `delete_many` does nothing: the old value may remain."""


_WORDS: Mapping[str, tuple[str, str]] = {
    "read": ("raise", "miss"),
    "set": ("raise", "ignore"),
    "touch": ("raise", "ignore"),
    "delete": ("raise", "ignore"),
}
_EXPECTED = (
    "'raise', 'miss' (reads become misses, writes raise), or a dict with some of "
    "{'read': 'raise' or 'miss'; 'set', 'touch', 'delete': 'raise' or 'ignore'}; "
    "'add', 'incr' and 'incr_version' always raise, because no result would be true"
)


def read_error_policy(value: Any) -> ErrorPolicy:
    """Read the option; raise `ValueError` with the expected values."""
    if value == "raise":
        return ErrorPolicy()
    if value == "miss":
        return ErrorPolicy(read=True)
    if not isinstance(value, Mapping) or any(
        group not in _WORDS or word not in _WORDS[group] for group, word in value.items()
    ):
        raise ValueError(_EXPECTED)
    return ErrorPolicy(**{group: word != "raise" for group, word in value.items()})


# -- the table -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Fallback:
    """What a method returns in place of an error of the store."""

    group: Group
    result: Method
    """Called with the method's own arguments."""


def _default(key: Any, default: Any = None, version: int | None = None, **options: Any) -> Any:
    del key, version, options
    return default


def _all_keys(data: Mapping[Any, Any], *_args: Any, **_kwargs: Any) -> list[Any]:
    return list(data)


def _no_values(*_args: Any, **_kwargs: Any) -> dict[Any, Any]:
    return {}


def _constant(value: Any) -> Method:
    return lambda *_args, **_kwargs: value


# `a…` methods run these in a thread, and `keys`, `expire*` and `decr*` call them.
_FALLBACKS: Mapping[str, _Fallback] = {
    "get": _Fallback("read", _default),
    "get_many": _Fallback("read", _no_values),
    "has_key": _Fallback("read", _constant(value=False)),
    "ttl": _Fallback("read", _constant(0)),
    "pttl": _Fallback("read", _constant(0)),
    "set": _Fallback("set", _constant(None)),
    "set_many": _Fallback("set", _all_keys),
    "touch": _Fallback("touch", _constant(value=False)),
    "persist": _Fallback("touch", _constant(value=False)),
    "delete": _Fallback("delete", _constant(value=False)),
    "delete_many": _Fallback("delete", _constant(None)),
}
_ALWAYS_RAISE = ("add", "incr", "incr_version")


def apply_error_policy(cls: type[CacheT]) -> type[CacheT]:
    """Make the methods of a cache class follow `OPTIONS["on_error"]`: a class decorator.

    Methods that a base class with this decorator provides follow it already.
    """
    wrappers: dict[str, Callable[[Method], Method]] = {
        **{name: functools.partial(_with_fallback, fallback=it) for name, it in _FALLBACKS.items()},
        **dict.fromkeys(_ALWAYS_RAISE, _counting_errors),
        "iter_keys": _ending_early,
        "get_or_set": _computing_without_store,
        "aget_or_set": _acomputing_without_store,
    }
    for name, wrap in wrappers.items():
        method = getattr(cls, name)
        if not hasattr(method, "follows_on_error"):
            setattr(cls, name, follows_on_error(wrap(method)))
    return cls


def follows_on_error(method: MethodT) -> MethodT:
    """Mark a method that needs no wrapper, because what may fail in it follows the option; return it."""
    marked: Any = method
    marked.follows_on_error = True
    return method


def fall_back_as(name: str) -> Callable[[Method], Method]:
    """Make a part of a method follow the option as the method of this name does: a decorator."""
    return functools.partial(_with_fallback, fallback=_FALLBACKS[name])


# -- the wrappers of methods -----------------------------------------------------------------


def _with_fallback(method: Method, fallback: _Fallback) -> Method:
    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except STORE_FAILED as exc:
            if kwargs.get("nx") or kwargs.get("xx"):  # as for `add`, no result would be true
                self._count(ERRORS_RAISED)
                raise
            _swallow_or_raise(self, exc, fallback.group, self._count)
            return fallback.result(*args, **kwargs)

    return wrapped


def _counting_errors(method: Method) -> Method:
    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except STORE_FAILED:
            self._count(ERRORS_RAISED)
            raise

    return wrapped


def _ending_early(method: Method) -> Method:
    """Wrap a generator method: a swallowed error ends the iteration."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from method(self, *args, **kwargs)
        except STORE_FAILED as exc:
            _swallow_or_raise(self, exc, "read", self._count)

    return wrapped


def _computing_without_store(method: Method) -> Method:
    """Wrap `get_or_set`: a swallowed error leaves only the computation, which runs at most once."""

    @functools.wraps(method)
    def wrapped(self: Any, key: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
        once = RunOnce(default)
        try:
            return method(self, key, once, *args, **kwargs)
        except STORE_FAILED as exc:
            if exc is once.error:
                raise  # raised by the factory: this cache's store has not failed
            _swallow_or_raise(self, exc, "read", self._count)
            note_miss()
            return once()

    return wrapped


def _acomputing_without_store(method: Method) -> Method:
    """Wrap `aget_or_set` as `_computing_without_store` wraps its sync twin."""

    @functools.wraps(method)
    async def wrapped(self: Any, key: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
        once = RunOnce(default)

        async def compute() -> Any:
            return await once.awaited()

        try:
            return await method(self, key, compute, *args, **kwargs)
        except STORE_FAILED as exc:
            if exc is once.error:
                raise  # raised by the factory: this cache's store has not failed
            _swallow_or_raise(self, exc, "read", self._count)
            note_miss()
            return await once.awaited()

    return wrapped


def _swallow_or_raise(
    cache: SharedCache, error: Exception, group: Group, count: Callable[..., None]
) -> None:
    """Log the error if its group of operations is configured to swallow errors; else raise it."""
    policy: ErrorPolicy = cache.options["on_error"]
    if not getattr(policy, group) or raised_by_handler(error) is error:
        count(ERRORS_RAISED)
        raise error
    count(ERRORS_SWALLOWED)
    note_error(error)
    if (withheld := _log_throttle.due()) is not None:
        logger.warning(
            "%s ignored an error of its store because of OPTIONS['on_error'] (%s; %d more such "
            "errors since the last message)",
            type(cache).__name__,
            error,
            withheld,
            extra={"event": "cache_error_swallowed"},
        )
