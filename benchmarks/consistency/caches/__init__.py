"""The table of the caches that people use, as `cachecheck` finds them."""
