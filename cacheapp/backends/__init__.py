"""The backends for `CACHES`. Each is imported on first use, with the packages that it requires."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheapp.backends.disk import DiskCache
    from cacheapp.backends.lmdb import LMDBCache
    from cacheapp.backends.redis.cache import RedisCache

__all__ = ["DiskCache", "LMDBCache", "RedisCache"]

_MODULES = {
    "DiskCache": "cacheapp.backends.disk",
    "LMDBCache": "cacheapp.backends.lmdb",
    "RedisCache": "cacheapp.backends.redis.cache",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    backend = getattr(import_module(_MODULES[name]), name)
    globals()[name] = backend
    return backend
