"""The backends for `CACHES`. Each is imported on first use, with the packages that it requires.

A backend whose package is not installed, or too old, is a placeholder: `manage.py check` reports it as
`cacheapp.E002`, and each use of the cache raises `OptionsRefused`; both name the extra to install.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cacheapp.errors import ExtraMissing
from cacheapp.extras import needed_for

if TYPE_CHECKING:
    from cacheapp.backends.disk import DiskCache
    from cacheapp.backends.lmdb import LMDBCache
    from cacheapp.backends.near import NearCache
    from cacheapp.backends.redis.cache import RedisCache

__all__ = ["DiskCache", "LMDBCache", "NearCache", "RedisCache"]

_MODULES = {
    "DiskCache": ("cacheapp.backends.disk", "disk"),
    "LMDBCache": ("cacheapp.backends.lmdb", ""),
    "NearCache": ("cacheapp.backends.near", "redis"),
    "RedisCache": ("cacheapp.backends.redis.cache", "redis"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _MODULES[name]
    try:
        with needed_for(name, extra):
            backend = getattr(import_module(module), name)
    except ExtraMissing as exc:
        from cacheapp.backends.core.not_installed import placeholder  # noqa: PLC0415 (rarely used)

        backend = placeholder(name, str(exc))
    globals()[name] = backend
    return backend
