"""Encode keys as *names*, the keys of the LMDB database: a namespace, then the key or its hash.

A namespace is a hash of KEY_PREFIX and KEY_FUNCTION. So aliases with different prefixes never see
each other's keys, and `clear` removes a range. Keys that are too long for LMDB are hashed, in a
second namespace, and stored in full in front of their values: so a read verifies the hash, and
`scan` finds the key.
"""

import hashlib
from typing import TypeAlias

from cacheapp.backends.lmdb.records import HEADER_BYTES, KEY_LENGTH, Header

EncodedKey: TypeAlias = tuple[bytes, bytes]
"""The name of a key; and the key itself if the name is its hash, else `b""`."""

PREFIX_BYTES = 8
_MAX_NAME_BYTES = 511  # LMDB's limit


class KeyEncoder:
    """Encodes the keys of one alias."""

    def __init__(self, key_prefix: str, key_function: str) -> None:
        source = f"{len(key_prefix)}:{key_prefix}{key_function}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(source, digest_size=PREFIX_BYTES - 1).digest()
        self.prefix = digest + b"\0"
        self.hashed_prefix = digest + b"\1"

    def name(self, key: str) -> bytes:
        """Return the name of a key."""
        name = self.prefix + key.encode("utf-8", "surrogatepass")
        return name if len(name) <= _MAX_NAME_BYTES else self.encode(key)[0]

    def encode(self, key: str) -> EncodedKey:
        """Return the name of a key, with the key itself if the name is its hash."""
        encoded = key.encode("utf-8", "surrogatepass")
        if len(encoded) <= _MAX_NAME_BYTES - PREFIX_BYTES:
            return self.prefix + encoded, b""
        return self.hashed_prefix + hashlib.blake2b(encoded, digest_size=32).digest(), encoded

    def decode(self, name: bytes, raw: bytes, header: Header) -> str:
        """Return the key of an entry."""
        length = header[KEY_LENGTH]
        encoded = raw[HEADER_BYTES : HEADER_BYTES + length] if length else name[PREFIX_BYTES:]
        return encoded.decode("utf-8", "surrogatepass")
