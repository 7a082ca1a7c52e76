"""DiskCache, on `diskcache`.

cache       what CACHES names: options, tags
store       which shard has which key
settings    what options mean to the databases
session     runs an operation: connects, looks whether the file is still at its path, mends
quiet_shards which keys need no look, of those that are waited for
leases      leases and soft deadlines, on top of entries
locks       locks, in a database of their own
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
