"""The calls for many keys at a time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from cacheapp.backends.core.codec import Codec
from cacheapp.backends.core.counters import DELETES, HITS, MISSES, SETS
from cacheapp.backends.core.store import Store


class ManyKeys(BaseCache):
    """Mix-in: `get_many`, `set_many`, `delete_many`."""

    _store: Store
    _codec: Codec
    _count: Callable[..., None]
    _ttl: Callable[[float | None], float | None]
    _decode: Callable[..., Any]

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return a dict of the keys that are there."""
        finals = {key: self.make_and_validate_key(key, version=version) for key in keys}
        found = {}
        # Each once: 1 and "1" are two keys to the caller, and one to the store.
        payloads = self._store.get_many(list(dict.fromkeys(finals.values()))) if finals else {}
        for key, final in finals.items():
            if final in payloads:
                value = self._decode(final, payloads[final], self._missing_key)
                if value is not self._missing_key:
                    found[key] = value
        self._count(HITS, len(found))
        self._count(MISSES, len(finals) - len(found))
        return found

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Store all values; return the keys that could not be stored."""
        finals = {self.make_and_validate_key(key, version=version): key for key in data}
        payloads = {final: self._codec.encode(final, data[key]) for final, key in finals.items()}
        ttl = self._ttl(timeout)
        if not payloads:
            return []
        if ttl is not None and ttl <= 0:
            self._store.delete_many(list(finals))
            return []
        failed = [finals[final] for final in self._store.set_many(payloads, ttl)]
        self._count(SETS, len(payloads) - len(failed))
        return failed

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Remove the keys."""
        finals = [self.make_and_validate_key(key, version=version) for key in keys]
        if finals:
            self._count(DELETES, self._store.delete_many(finals))
