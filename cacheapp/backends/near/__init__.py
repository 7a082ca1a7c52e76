"""A Redis cache whose reads are served from a copy on this machine, with a bound on staleness."""

from cacheapp.backends.near.cache import NearCache

__all__ = ["NearCache"]
