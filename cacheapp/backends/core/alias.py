"""Finds the alias of a cache object, which Django does not pass when it builds the object."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from cacheapp.backends.local.paths import real_path


def alias_of(backend: type, location: Any, params: Mapping[str, Any]) -> str | None:
    """Return the first alias with this entry in `CACHES`; `None` for a cache built by hand.

    Equal entries are one cache with several aliases; every process returns the same one.
    """
    for alias, entry in settings.CACHES.items():
        rest = {name: value for name, value in entry.items() if name not in {"BACKEND", "LOCATION"}}
        if (
            is_one_location(entry.get("LOCATION", ""), location)
            and rest == params
            and import_string(entry["BACKEND"]) is backend
        ):
            return str(alias)
    return None


def is_one_location(one: Any, other: Any) -> bool:
    """Return True if two values of LOCATION are equal, or are paths that lead to one directory.

    The answer is the same before and after the directory is created.
    """
    return bool(one == other) or (
        _is_absolute(one) and _is_absolute(other) and _place(one) == _place(other)
    )


def _is_absolute(location: Any) -> bool:
    return isinstance(location, str | os.PathLike) and Path(location).is_absolute()


def _place(location: Any) -> tuple[int, int, tuple[str, ...]] | Path:
    """Return device and inode of the nearest directory that exists, and the rest of the path."""
    path = Path(real_path(location))
    for ancestor in (path, *path.parents):
        try:
            found = ancestor.stat()
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                continue
            if exc.errno is None:  # a signal handler's
                raise
            break  # it cannot be looked at
        return found.st_dev, found.st_ino, path.parts[len(ancestor.parts) :]
    return path
