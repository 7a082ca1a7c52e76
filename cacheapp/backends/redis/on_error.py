"""`OPTIONS["on_error"]`: what a cache's caller sees while its store fails.

By kind, because not every answer can be made up. A failed read can honestly be a miss. A failed
`add`, `incr` or `incr_version` cannot be anything: "you won" and "you lost" are both lies, so they
always raise. A swallowed write leaves an older value behind, so writes raise unless asked
otherwise, kind by kind.
"""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cacheapp.backends.core.counters import ERRORS_RAISED, ERRORS_SWALLOWED
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.run_once import RunOnce
from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable

logger = logging.getLogger(__name__)
_quiet = LogThrottle()

STORE_FAILED = (StoreUnavailable, OutcomeUnknown, StoreFull)


@dataclasses.dataclass(frozen=True)
class ErrorPolicy:
    """Whether a failure of the store is swallowed, per kind of operation."""

    read: bool = False
    """`get`, `get_many`, `has_key`, `ttl`, `keys` become misses; `get_or_set` computes."""

    set: bool = False
    """`set` does nothing; `set_many` returns all keys as not stored."""

    touch: bool = False
    """`touch`, `expire`, `persist` return `False`."""

    delete: bool = False
    """`delete` returns `False`, `delete_many` does nothing: a stale value may stay behind."""


_WORDS = {
    "read": ("raise", "miss"),
    "set": ("raise", "ignore"),
    "touch": ("raise", "ignore"),
    "delete": ("raise", "ignore"),
}
_EXPECTED = (
    "'raise', 'miss' (reads become misses, writes raise), or a dict with some of "
    "{'read': 'raise' or 'miss'; 'set', 'touch', 'delete': 'raise' or 'ignore'}; "
    "'add', 'incr' and 'incr_version' always raise, because no answer would be true"
)


def read_error_policy(value: Any) -> ErrorPolicy:
    """Read the option."""
    if value == "raise":
        return ErrorPolicy()
    if value == "miss":
        return ErrorPolicy(read=True)
    if not isinstance(value, Mapping) or any(
        kind not in _WORDS or word not in _WORDS[kind] for kind, word in value.items()
    ):
        raise ValueError(_EXPECTED)
    return ErrorPolicy(**{kind: word != "raise" for kind, word in value.items()})


class Forgiving(SharedCache):
    """A shared cache that obeys `OPTIONS["on_error"]`."""

    def _swallow(self, error: Exception, *, asked: bool) -> None:
        """Log the error where its kind is to be swallowed; else raise it."""
        if not asked:
            self._count(ERRORS_RAISED)
            raise error
        self._count(ERRORS_SWALLOWED)
        if (withheld := _quiet.due()) is not None:
            logger.warning(
                "%s goes on without its store, as OPTIONS['on_error'] asks (%s; %d more since the "
                "last such line)",
                type(self).__name__,
                error,
                withheld,
                extra={"event": "cache_error_swallowed"},
            )

    @property
    def _on_error(self) -> ErrorPolicy:
        found: ErrorPolicy = self.options["on_error"]
        return found

    # -- reads -------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)
            return default

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        try:
            return super().get_many(keys, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)
            return {}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        try:
            return super().has_key(key, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)
            return False

    def ttl(self, key: Any, version: int | None = None) -> int | None:
        try:
            return super().ttl(key, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)
            return 0

    def pttl(self, key: Any, version: int | None = None) -> int | None:
        try:
            return super().pttl(key, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)
            return 0

    def iter_keys(
        self, search: str, version: int | None = None, itersize: int = 1000
    ) -> Iterator[str]:
        try:
            yield from super().iter_keys(search, version, itersize)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.read)

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> Any:
        """Return the value, or compute and store it; without a store, only compute it."""
        once = RunOnce(default)
        try:
            return super().get_or_set(key, once, timeout, version, stale=stale, jitter=jitter)
        except STORE_FAILED as exc:
            if exc is once.error:
                raise  # it is not this cache's store that failed
            self._swallow(exc, asked=self._on_error.read)
            return once()

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> Any:
        """Do what `get_or_set` does."""
        once = RunOnce(default)

        async def compute() -> Any:
            return await once.awaited()

        try:
            return await super().aget_or_set(
                key, compute, timeout, version, stale=stale, jitter=jitter
            )
        except STORE_FAILED as exc:
            if exc is once.error:
                raise  # it is not this cache's store that failed
            self._swallow(exc, asked=self._on_error.read)
            return await once.awaited()

    # -- writes ------------------------------------------------------------------------------

    def set(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> None:
        try:
            super().set(key, value, timeout, version, stale=stale, jitter=jitter)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.set)

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        try:
            return super().set_many(data, timeout, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.set)
            return list(data)

    def touch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        try:
            return super().touch(key, timeout, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.touch)
            return False

    def persist(self, key: Any, version: int | None = None) -> bool:
        try:
            return super().persist(key, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.touch)
            return False

    def delete(self, key: Any, version: int | None = None) -> bool:
        try:
            return super().delete(key, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.delete)
            return False

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        try:
            super().delete_many(keys, version)
        except STORE_FAILED as exc:
            self._swallow(exc, asked=self._on_error.delete)

    # -- what always raises ------------------------------------------------------------------

    def add(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        try:
            return super().add(key, value, timeout, version)
        except STORE_FAILED:
            self._count(ERRORS_RAISED)
            raise

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        try:
            return super().incr(key, delta, version)
        except STORE_FAILED:
            self._count(ERRORS_RAISED)
            raise

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        try:
            return super().incr_version(key, delta, version)
        except STORE_FAILED:
            self._count(ERRORS_RAISED)
            raise
