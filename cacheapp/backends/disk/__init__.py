"""DiskCache: the backend on `diskcache`.

cache               the class that CACHES names: options, tags
store               which shard holds which key; the primitives of `Store`
entries, leases     the atomic operations on one shard, as SQL
shard               one database: transactions, culling, what diskcache provides
value_files         values that are too large for a row
shard_options       from the cache's options to a database's settings
shard_maintenance   the size of the WAL, orphaned files
change_detection    which polled keys cannot have changed
library             the installed diskcache: the original or its fork
"""

from cacheapp.backends.disk.cache import DiskCache

__all__ = ["DiskCache"]
