"""`LMDBCache`: the backend class that `CACHES` names, and its options."""

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.core.cache.backends.base import default_key_func
from django.utils.module_loading import import_string

from cacheapp.backends.core.alias import is_one_location
from cacheapp.backends.core.async_methods import T, in_thread
from cacheapp.backends.core.options import COMMON, Option, read_options
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.fast_path import FastPath
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.limits import MIN_SIZE_LIMIT, SizeLimits
from cacheapp.backends.lmdb.location import shared_location
from cacheapp.backends.lmdb.store import LMDBStore
from cacheapp.backends.local.shared_directory import resolve_location
from cacheapp.typed_values import none_or, whole_number

_DIRECTORY_OPTIONS = ("size_limit", "MAX_ENTRIES")


class LMDBCache(FastPath):
    """A cache in a memory-mapped file on this machine: one copy for all workers, read without locks.

    `LOCATION` is a directory. Aliases with one LOCATION share its space and must have the same
    `size_limit` and `MAX_ENTRIES`; aliases with different prefixes do not see each other's keys.
    The cache is empty after the machine restarts.

    The `a…` methods call their sync twins in the event loop's thread, because a hop to another
    thread and back takes twenty times as long as a read. A write waits only while another one is in
    progress, perhaps in a process that is stopped; then it runs in a thread, and the event loop
    continues. `is_busy` is a hint: if another write begins after that check, the event loop waits
    for it. Writes of other values than plain data run in the thread of the request's sync code.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "size_limit": Option(whole_number(MIN_SIZE_LIMIT), 256 * 2**20),
        "MAX_ENTRIES": Option(none_or(whole_number(1)), None),
    }

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return one sentence per mistake in an entry of `CACHES`."""
        found = super().mistakes(location, params) + _location_mistakes(location)
        return found or _conflicts(location, params, cls.OPTIONS)

    def stats(self) -> dict[str, int]:
        """Return the counters of this alias, and what its whole directory contains."""
        return {**super().stats(), **self._store.figures()}

    def _shared_store(self) -> LMDBStore:
        path = resolve_location(self.location)
        limits = SizeLimits(self.options["size_limit"], self.options["MAX_ENTRIES"])
        location = shared_location(path, limits)
        function = "" if self.key_func is default_key_func else _qualified_name(self.key_func)
        key = ("lmdb", path, self.key_prefix, function)
        return registry.get_or_create(
            key, lambda: LMDBStore(location, KeyEncoder(self.key_prefix, function))
        )

    # -- async methods -----------------------------------------------------------------------

    async def _run_read(self, method: Callable[..., T], *args: Any) -> T:
        return method(*args)

    async def _run_write(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self._environment.is_busy():
            return await in_thread(method, *args, **kwargs)
        return method(*args, **kwargs)

    async def aclear(self) -> None:
        """Remove this alias's keys; in a thread, because there may be many."""
        await in_thread(self.clear)


def _qualified_name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _location_mistakes(location: Any) -> list[str]:
    if not isinstance(location, str | os.PathLike) or not str(location):
        return [f"LOCATION is {location!r}; expected the path of a directory"]
    return []


def _conflicts(location: Any, params: Mapping[str, Any], known: Mapping[str, Option]) -> list[str]:
    """Return one sentence per option of the directory that differs in another alias."""
    options, _ = read_options(params.get("OPTIONS", {}), known)
    found = []
    for alias, entry in settings.CACHES.items():
        if not _shares_location(entry, location):
            continue
        others, _ = read_options(entry.get("OPTIONS", {}), known)
        found += [
            f"OPTIONS[{name!r}] is {options[name]}, but {others[name]} for CACHES[{alias!r}] with "
            "the same LOCATION; expected one value for one directory"
            for name in _DIRECTORY_OPTIONS
            if others[name] != options[name]
        ]
    return found


def _shares_location(entry: Mapping[str, Any], location: Any) -> bool:
    try:
        backend = import_string(entry["BACKEND"])
        one, other = os.path.abspath(entry.get("LOCATION", "")), os.path.abspath(location)
    except (ImportError, KeyError, TypeError):
        return False
    return issubclass(backend, LMDBCache) and is_one_location(one, other)
