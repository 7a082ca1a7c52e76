"""What `CACHES` may name, and what the shared backends have in common."""

from cacheapp.backends.disk import DiskCache
from cacheapp.backends.lmdb import LMDBCache
from cacheapp.backends.redis import RedisCache

__all__ = ["DiskCache", "LMDBCache", "RedisCache"]
