"""The shared cache of an alias, for features that only work with shared caches."""

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from cacheapp.backends.core.shared import SharedCache


def shared_cache(alias: str, caller: str) -> SharedCache:
    """Return the cache; raise `ImproperlyConfigured` if its backend is not one of cacheapp's."""
    cache = caches[alias]
    if not isinstance(cache, SharedCache):
        found = f"{type(cache).__module__}.{type(cache).__qualname__}"
        raise ImproperlyConfigured(
            f"{caller} uses CACHES[{alias!r}], which is a {found}; expected a backend of "
            "cacheapp.backends: other backends do not compute once, or do not count exactly, "
            "across all workers"
        )
    return cache
