"""How keys are called in LMDB: a namespace, then the key; or its hash where that is too long.

A namespace is a hash of KEY_PREFIX and KEY_FUNCTION: so aliases with other prefixes do not see each
other, whatever their keys are, and `clear` is a range. Hashed keys have a namespace of their own,
and stand whole in front of their values: a hash is verified, and `scan` finds the real name.
"""

import hashlib

from cacheapp.backends.lmdb.entries import Name
from cacheapp.backends.lmdb.records import HEAD_BYTES, Header

_LONGEST = 511  # LMDB's limit
SPACE_BYTES = 8


class KeyEncoder:
    """The names of one alias's keys."""

    def __init__(self, key_prefix: str, key_function: str) -> None:
        what = f"{len(key_prefix)}:{key_prefix}{key_function}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(what, digest_size=SPACE_BYTES - 1).digest()
        self.space = digest + b"\0"
        self.hashed = digest + b"\1"

    def short(self, key: str) -> bytes:
        """Return the name of a key, as `of` does; without the key itself."""
        name = self.space + key.encode("utf-8", "surrogatepass")
        return name if len(name) <= _LONGEST else self.of(key)[0]

    def of(self, key: str) -> Name:
        """Return the name of a key, and the key itself if the name is its hash."""
        encoded = key.encode("utf-8", "surrogatepass")
        if len(encoded) <= _LONGEST - SPACE_BYTES:
            return self.space + encoded, b""
        return self.hashed + hashlib.blake2b(encoded, digest_size=32).digest(), encoded

    def key(self, name: bytes, raw: bytes, head: Header) -> str:
        """Return the key of an entry."""
        encoded = raw[HEAD_BYTES : HEAD_BYTES + head[2]] if head[2] else name[SPACE_BYTES:]
        return encoded.decode("utf-8", "surrogatepass")
