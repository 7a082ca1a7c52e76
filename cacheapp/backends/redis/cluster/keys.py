"""Keys on a cluster: their slots, and hash tags that keep what belongs together in one slot. Pure.

Redis hashes only what is between the first `{` of a key and the next `}`, if that is not empty.
"""

import functools
import re
from typing import Any

from redis import crc
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

__all__ = ["END", "SLOTS", "is_own_key", "key_slot", "lock_keys", "tagged_key"]

END = "}"
"""The end of each final key that `tagged_key` makes."""

_version = re.compile(rb"-?[0-9]+\{:")


@functools.lru_cache(maxsize=4096)  # the same keys are read again and again
def key_slot(key: bytes) -> int:
    """Return the slot of a key."""
    return int(crc.key_slot(key))


def tagged_key(key: Any, key_prefix: str, version: int | str) -> str:
    """Return the final key: a `KEY_FUNCTION` that keeps all versions of a key in one slot.

    The tag begins with a colon, so it is never empty.
    """
    return f"{key_prefix}:{version}{{:{key}{END}"


def is_own_key(stored: bytes, start: bytes) -> bool:
    """Return True if a stored key is one of `tagged_key`, of any version; `start` is "PREFIX:"."""
    return stored.startswith(start) and _version.match(stored, len(start)) is not None


def lock_keys(name: str) -> tuple[bytes, bytes]:
    """Return the keys of the lock and of its fence: in one slot, and not of the form of `tagged_key`.

    The control characters make the tag end where it does whatever the name contains, and distinguish
    these keys from those of entries (see `cacheapp.backends.redis.locks`).
    """
    tag = name.replace(":", "\x1f:").replace("}", "\x1f}").encode("utf-8", "surrogatepass")
    return b"{\x1f" + tag + b"}\x1flock", b"{\x1f" + tag + b"}\x1ffence"
