"""What tools see of the caches: each adapter here subscribes to operations; docs/howto/watch.md."""

from cacheapp.backends.core.operations import Operation, subscribe

__all__ = ["Operation", "subscribe"]
