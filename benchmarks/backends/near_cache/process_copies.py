"""A peer: a copy in each process, with a TTL, as sites build it with `cachetools.TTLCache`.

Nothing invalidates it: each process serves its own copy for a second, whatever others write.
"""

import threading
import time
from collections import OrderedDict
from typing import Any

from cacheapp.backends import RedisCache

_TTL_S = 1.0
_ENTRIES = 1_000_000
_lock = threading.Lock()
_copies: dict[str, OrderedDict[str, tuple[float, Any]]] = {}
"""By the prefix of the keys. Guarded by `_lock`."""


class ProcessCopies(RedisCache):
    """A `RedisCache` whose `get` is served from a dict of this process for a second."""

    TTL_S = _TTL_S

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value of the dict, or read it from Redis and keep it."""
        now = time.monotonic()
        with _lock:
            copies = _copies.setdefault(self.key_prefix, OrderedDict())
            found = copies.get(key)
            if found is not None and now < found[0]:
                copies.move_to_end(key)
                return found[1]
        value = super().get(key, default, version)
        with _lock:
            copies[key] = now + self.TTL_S, value
            if len(copies) > _ENTRIES:
                copies.popitem(last=False)
        return value

    def set(self, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        """Store the value in Redis, and forget it in this process."""
        result = super().set(key, value, *args, **options)
        with _lock:
            _copies.setdefault(self.key_prefix, OrderedDict()).pop(key, None)
        return result


class LastingProcessCopies(ProcessCopies):
    """The same without a TTL, to measure its memory."""

    TTL_S = 86_400.0
