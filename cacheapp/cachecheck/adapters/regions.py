"""Adapters of synchronous cache libraries: dogpile.cache, cachelib and Flask-Caching."""

import sys
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

from cacheapp.cachecheck.adapters.base import Adapter, without


class DogpileAdapter(Adapter):
    """A region of dogpile.cache. All keys of a region have one expiration time, and `delete` says nothing."""

    timeouts = False

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._missing = sys.modules["dogpile.cache.api"].NO_VALUE

    def get(self, key: str, default: Any = None) -> Any:
        """Read."""
        value = self.subject.get(key)
        return default if value is self._missing else value

    def set(self, key: str, value: Any, timeout: float) -> None:
        """Write."""
        del timeout
        self.subject.set(key, value)

    def delete(self, key: str) -> None:
        """Remove."""
        self.subject.delete(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read several."""
        values = self.subject.get_multi(list(keys))
        return without(dict(zip(keys, values, strict=True)), self._missing)

    def set_many(self, values: Mapping[str, Any], timeout: float) -> None:
        """Write several."""
        del timeout
        self.subject.set_multi(dict(values))

    def get_or_set(self, key: str, default: Callable[[], Any], timeout: float) -> Any:
        """Call `get_or_create`, which lets one caller compute."""
        del timeout
        return self.subject.get_or_create(key, default)


class CachelibAdapter(Adapter):
    """A cache of cachelib, or `flask_caching.Cache` with an application. Its timeouts are whole seconds."""

    def get(self, key: str, default: Any = None) -> Any:
        """Read."""
        value = self.subject.get(key)
        return default if value is None else value

    def set(self, key: str, value: Any, timeout: float) -> Any:
        """Write."""
        return self.subject.set(key, value, timeout=ceil(timeout))

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """Write if absent."""
        return bool(self.subject.add(key, value, timeout=ceil(timeout)))

    def delete(self, key: str) -> bool:
        """Remove."""
        return bool(self.subject.delete(key))

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read several."""
        return without(dict(zip(keys, self.subject.get_many(*keys), strict=True)))

    def set_many(self, values: Mapping[str, Any], timeout: float) -> None:
        """Write several. What is returned differs between versions and says nothing."""
        self.subject.set_many(dict(values), timeout=ceil(timeout))

    def clear(self) -> None:
        """Remove everything."""
        self.subject.clear()
