"""Finds the alias of a cache object, which Django does not pass when it builds the object."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


def alias_of(backend: type, location: Any, params: Mapping[str, Any]) -> str | None:
    """Return the first alias with this entry in `CACHES`; `None` for a cache built by hand.

    Equal entries are one cache with several aliases; every process returns the same one.
    """
    for alias, entry in settings.CACHES.items():
        rest = {name: value for name, value in entry.items() if name not in {"BACKEND", "LOCATION"}}
        if (
            entry.get("LOCATION", "") == location
            and rest == params
            and import_string(entry["BACKEND"]) is backend
        ):
            return str(alias)
    return None
