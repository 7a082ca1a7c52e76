"""What `CACHES` may name. Each is imported when first asked for, with the packages that it needs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheapp.backends.disk import DiskCache
    from cacheapp.backends.lmdb import LMDBCache
    from cacheapp.backends.redis.cache import RedisCache

__all__ = ["DiskCache", "LMDBCache", "RedisCache"]

_HOMES = {
    "DiskCache": "cacheapp.backends.disk",
    "LMDBCache": "cacheapp.backends.lmdb",
    "RedisCache": "cacheapp.backends.redis.cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
