"""DiskCache: on `diskcache`."""

import diskcache


class DiskCache(diskcache.DjangoCache):  # type: ignore[misc]
    """Placeholder until the store lands."""
