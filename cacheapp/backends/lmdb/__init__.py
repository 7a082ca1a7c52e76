"""LMDBCache: a cache in a memory-mapped file that all processes of this host share."""

from cacheapp.backends.lmdb.cache import LMDBCache

__all__ = ["LMDBCache"]
