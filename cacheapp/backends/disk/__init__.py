"""DiskCache, on `diskcache`.

cache       what CACHES names: options, tags
store       which shard has which key
session     runs an operation: connects, looks whether the file is still at its path, mends
entries     what is done with a shard's entries: SQL, one transaction each
shard       one database: diskcache's part, culling
upkeep      the size of the WAL, orphaned files
files       values that are too large for a row
connections threads and forks
directory   paths, permissions, the lock
faults      what errors mean
"""

from cacheapp.backends.disk.cache import DiskCache

__all__ = ["DiskCache"]
