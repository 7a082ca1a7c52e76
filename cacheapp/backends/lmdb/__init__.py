"""LMDBCache: a cache in a memory-mapped file that all processes of this machine share."""

from cacheapp.backends.lmdb.cache import LMDBCache

__all__ = ["LMDBCache"]
