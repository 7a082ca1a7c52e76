"""Which alias of `CACHES` a cache object is: Django builds the object without telling it."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


def alias_of(backend: type, location: Any, params: Mapping[str, Any]) -> str | None:
    """Return the first alias whose entry in `CACHES` is this one; `None` for one built by hand.

    Entries that are equal in everything are one cache by several names, in every process alike.
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
