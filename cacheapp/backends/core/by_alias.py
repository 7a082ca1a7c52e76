"""The shared cache behind an alias, for what rests on promises that only shared caches make."""

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from cacheapp.backends.core.shared import SharedCache


def shared_cache(alias: str, caller: str) -> SharedCache:
    """Return the cache; raise `ImproperlyConfigured` unless it is one of cacheapp's."""
    cache = caches[alias]
    if not isinstance(cache, SharedCache):
        found = f"{type(cache).__module__}.{type(cache).__qualname__}"
        raise ImproperlyConfigured(
            f"{caller} uses CACHES[{alias!r}], which is a {found}; expected a backend of "
            "cacheapp.backends: others do not compute once, or do not count exactly, over all "
            "workers"
        )
    return cache
