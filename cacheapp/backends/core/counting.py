"""Counting, and moving between versions: what goes by compare-and-set where the store cannot do it."""

from collections.abc import Callable
from typing import Any

from django.core.cache.backends.base import BaseCache

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.codec import Codec
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable, Store


class Counting(BaseCache):
    """Mix-in: `incr`, `decr`, `incr_version`."""

    _store: Store
    _codec: Codec
    _missing_key: object
    _decode: Callable[..., Any]

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` (an int or a float) to a number; return the sum. Its deadline is kept.

        Raises `ValueError` where the key is missing, `TypeError` where it holds no number.
        """
        final = self.make_and_validate_key(key, version=version)
        if type(delta) is int:
            try:
                total = self._store.incr(final, delta)
            except NotCountable as exc:
                return self._incr_slowly(key, final, delta, exc.found)
            if total is None:
                raise ValueError(f"Key {key!r} not found")
            return total
        return self._incr_slowly(key, final, delta, None)

    def _incr_slowly(self, key: Any, final: str, delta: float, found: Payload | None) -> int:
        """Add by compare-and-set: for floats, and beyond what the store counts by itself.

        `found` is what the store has just read, if it has. Each failure of `replace` means that
        another write succeeded, so somebody always advances.
        """
        payload = self._store.get(final) if found is None else found
        while payload is not None:
            value = self._decode(final, payload, self._missing_key)
            if value is self._missing_key:
                break
            if not isinstance(value, int | float):
                raise TypeError(
                    f"Key {key!r} holds a {type(value).__name__}; only numbers can be incremented"
                )
            total = value + delta
            new = lease_format.keep_soft_deadline(self._codec.encode(final, total), like=payload)
            if self._store.replace(final, payload, new):
                return total  # type: ignore[return-value]  # Django's stubs know no float counters
            payload = self._store.get(final)
        raise ValueError(f"Key {key!r} not found")

    def decr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Subtract `delta`; see `incr`."""
        return self.incr(key, -delta, version=version)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move the value to `version + delta`, with its deadline; return the new version.

        Raises `ValueError` where the key is missing.
        """
        if version is None:
            version = self.version
        source = self.make_and_validate_key(key, version=version)
        target = self.make_and_validate_key(key, version=version + delta)
        while (payload := self._store.get(source)) is not None:
            value = self._decode(source, payload, self._missing_key)
            if value is self._missing_key:
                break
            new = lease_format.keep_soft_deadline(self._codec.encode(target, value), like=payload)
            if source == target or self._store.move(source, target, payload, new):
                return version + delta
        raise ValueError(f"Key {key!r} not found")
