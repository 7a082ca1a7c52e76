"""How much `cachecheck` finds in caches that are broken, and that it accuses none that is right."""
