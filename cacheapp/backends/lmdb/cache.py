"""LMDBCache: what `CACHES` names, and its options."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache.backends.base import default_key_func
from django.utils.module_loading import import_string

from cacheapp.backends.core.options import COMMON, Option, count, count_or_none, read_options
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.async_methods import InlineAsyncMethods
from cacheapp.backends.lmdb.fast_path import FastPath
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.limits import MIN_SIZE_LIMIT, SizeLimits
from cacheapp.backends.lmdb.location import shared_location
from cacheapp.backends.lmdb.store import LMDBStore

_OF_DIRECTORY = ("size_limit", "MAX_ENTRIES")


class LMDBCache(InlineAsyncMethods, FastPath):
    """A cache in a memory-mapped file of this host: one copy for all workers, read without locks.

    `LOCATION` is a directory. Aliases with one LOCATION share its room, and must agree in the
    options about that; those with other prefixes do not see each other's keys. The cache starts
    empty when the machine does.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "size_limit": Option(count(MIN_SIZE_LIMIT), 256 * 2**20),
        "MAX_ENTRIES": Option(count_or_none(1), None),
    }

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`."""
        found = super().mistakes(location, params) + _location_mistakes(location)
        return found or _conflicts(location, params, cls.OPTIONS)

    def stats(self) -> dict[str, int]:
        """Return what was counted for this alias, and what its whole directory holds."""
        return {**super().stats(), **self._store.figures()}

    def _shared_store(self) -> LMDBStore:
        place = Path(os.path.abspath(self.location))
        limits = SizeLimits(self.options["size_limit"], self.options["MAX_ENTRIES"])
        shared = shared_location(place, limits)
        function = "" if self.key_func is default_key_func else _named(self.key_func)
        key = ("lmdb", place, self.key_prefix, function)
        return registry.shared(
            key, lambda: LMDBStore(shared, KeyEncoder(self.key_prefix, function))
        )


def _named(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _location_mistakes(location: Any) -> list[str]:
    if not isinstance(location, str | os.PathLike) or not str(location):
        return [f"LOCATION is {location!r}; expected the path of a directory"]
    return []


def _conflicts(location: Any, params: Mapping[str, Any], known: Mapping[str, Option]) -> list[str]:
    """Return which options of the directory another alias gives another value."""
    options, _ = read_options(params.get("OPTIONS", {}), known)
    found = []
    for alias, entry in settings.CACHES.items():
        if not _is_here(entry, location):
            continue
        others, _ = read_options(entry.get("OPTIONS", {}), known)
        found += [
            f"OPTIONS[{name!r}] is {options[name]}, and {others[name]} for CACHES[{alias!r}] with "
            "the same LOCATION; expected one value for one directory"
            for name in _OF_DIRECTORY
            if others[name] != options[name]
        ]
    return found


def _is_here(entry: Mapping[str, Any], location: Any) -> bool:
    try:
        backend = import_string(entry["BACKEND"])
        there = os.path.abspath(entry.get("LOCATION", ""))
    except (ImportError, KeyError, TypeError):
        return False
    return issubclass(backend, LMDBCache) and there == os.path.abspath(location)
