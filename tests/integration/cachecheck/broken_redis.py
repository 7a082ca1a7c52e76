"""Backends on Redis that break a promise when their server is disturbed, and only then."""

import contextlib
from typing import Any, ClassVar

from cacheapp.backends import RedisCache
from cacheapp.errors import OutcomeUnknown, StoreUnavailable

_FAILED = (OutcomeUnknown, StoreUnavailable)


class SwallowsLostWrites(RedisCache):
    """Takes a write whose answer was lost for one that happened."""

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the value, or say so."""
        with contextlib.suppress(*_FAILED):
            super().set(key, value, timeout, version)

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove the key, or say so."""
        try:
            return super().delete(key, version)
        except _FAILED:
            return True


class ServesCopiesWhenDown(RedisCache):
    """Answers with what this process last read or wrote while the server is away."""

    _copies: ClassVar[dict[str, Any]] = {}

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what is there, or the copy."""
        with contextlib.suppress(*_FAILED):
            self._copies[key] = super().get(key, default, version)
        return self._copies.get(key, default)

    def set(  # type: ignore[override]
        self, key: Any, value: Any, timeout: Any = 300, version: int | None = None
    ) -> None:
        """Store the value, and keep a copy."""
        super().set(key, value, timeout, version)
        self._copies[key] = value


ON_REDIS: dict[str, type] = {
    found.__name__: found for found in (SwallowsLostWrites, ServesCopiesWhenDown)
}
