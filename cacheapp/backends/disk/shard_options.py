"""Convert the options of a DiskCache to the settings and pragmas of its shards' databases."""

from typing import Any

from cacheapp.backends.disk.shard import PROBES, CountCulled, Shard
from cacheapp.backends.disk.shard_maintenance import ShardMaintenance
from cacheapp.backends.local.database_spec import DatabaseSpec

_PAGE = 4096
_SHM_BYTES = 32 * 1024
_DISKCACHE_SETTINGS = (
    *("cull_limit", "eviction_policy", "disk_min_file_size"),
    *("sqlite_cache_size", "sqlite_mmap_size", "sqlite_synchronous"),
)


def wal_pages_of(budget: int) -> int:
    """Return the pages of a write-ahead log after which it is written back."""
    return max(16, min(1000, budget // 16 // _PAGE))


def largest_value(options: Any, shards: int) -> int:
    """Return the bytes that the rows of a shard may have, and so the largest value.

    The rest of its share is for the WAL and its index, and for freed pages, which the file keeps until
    the next checkpoint.
    """
    budget: int = options["size_limit"] // shards
    return max(budget // 4, budget - 4 * wal_pages_of(budget) * _PAGE - _SHM_BYTES)


def shard_spec(
    options: Any, shards: int, timeout_s: float, count_culled: CountCulled
) -> DatabaseSpec:
    """Return how to open and maintain the databases, by the cache's options."""
    wal_pages = wal_pages_of(options["size_limit"] // shards)
    wal_bytes = wal_pages * _PAGE
    settings = {
        **{name: options[name] for name in _DISKCACHE_SETTINGS},
        "tag_index": int(options["tag_index"]),
        "size_limit": largest_value(options, shards),
        "sqlite_journal_mode": "wal",
        "sqlite_wal_autocheckpoint": wal_pages,
        "sqlite_journal_size_limit": wal_bytes,
    }
    # Settings of each connection; the file stores the others.
    pragmas = [
        f"PRAGMA {name.removeprefix('sqlite_')} = {value}"
        for name, value in settings.items()
        if name.startswith("sqlite_") and name != "sqlite_auto_vacuum"
    ]
    return DatabaseSpec(
        open=lambda directory, connection: Shard(directory, connection, settings, count_culled),
        probes=PROBES,
        pragmas=pragmas,
        after_write=ShardMaintenance(2 * wal_bytes, timeout_s).after_write,
    )
