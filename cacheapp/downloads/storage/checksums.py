"""What a file's bytes must add up to: sums given by whoever ordered it, and those that the origin sends.

A sum counts only if it is one of the whole file as it is stored: not of a part (`Content-MD5` and
S3's of a 206), not of parts' sums (S3's composite ones, and ETags of multipart uploads), not of the
ciphertext (ETags of objects under KMS or customer keys).
"""

import base64
import binascii
import dataclasses
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

Bytes = bytes | bytearray | memoryview

_SHA256_HEX = re.compile("[0-9a-fA-F]{64}")
_PLAIN_ETAG = re.compile('"?([0-9a-fA-F]{32})"?')
_CRC_SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8}
_SIZES = {"sha256": 32, "sha512": 64, "sha1": 20, "md5": 16, **_CRC_SIZES}
_FEW, _WITH_LOCK = 16 * 1024, 2047
_AMAZON = "x-amz-checksum-"
_OF_AMAZON = ("sha256", "sha1", *_CRC_SIZES)
_REPRESENTATION = {"sha-256": "sha256", "sha-512": "sha512"}  # RFC 9530
_DICTIONARY_ITEM = re.compile(r"\s*([a-z0-9-]+)=:([A-Za-z0-9+/=]+):\s*")


@dataclasses.dataclass(frozen=True)
class Checksum:
    """One sum that the file must have."""

    algorithm: str
    digest: bytes
    source: str
    """Where it comes from, for the message."""


class Hasher(Protocol):
    """What `hashlib` makes, and what stands in for it."""

    def update(self, data: Bytes, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the sum of all bytes so far."""


class _Crc:
    """A sum that a function carries on: from the next bytes and the sum so far."""

    def __init__(self, algorithm: str) -> None:
        self._add = _crc(algorithm)
        self._size = _CRC_SIZES[algorithm]
        self._value = 0

    def update(self, data: Bytes, /) -> None:
        self._value = self._add(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _crc(algorithm: str) -> Callable[[Bytes, int], int]:
    if algorithm == "crc32":
        return zlib.crc32
    # Amazon's own: 12 MB and 40 ms, for those who meet an object with such a sum.
    from awscrt import checksums  # noqa: PLC0415

    found: Callable[[Bytes, int], int] = getattr(checksums, algorithm)
    return found


class RunningChecksums:
    """The sums of the bytes that have come so far. Large updates leave the GIL to other threads."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashers: dict[str, Hasher] = {name: _hasher(name) for name in algorithms}

    def update(self, data: Bytes) -> None:
        """Add the next bytes.

        `hashlib` gives the interpreter lock away for 2,048 bytes and more, and then waits for it: for
        longer, with many threads, than these few bytes take.
        """
        pieces = [data]
        if len(data) <= _FEW:
            pieces = [data[at : at + _WITH_LOCK] for at in range(0, len(data), _WITH_LOCK)]
        for hasher in self._hashers.values():
            for piece in pieces:
                hasher.update(piece)

    def digest(self, algorithm: str) -> bytes | None:
        """Return a sum as it stands; `None` where it was not asked for."""
        hasher = self._hashers.get(algorithm)
        return None if hasher is None else hasher.digest()

    def has(self, algorithms: Iterable[str]) -> bool:
        """Return whether all these sums are being made."""
        return self._hashers.keys() >= set(algorithms)

    def wrong(self, checksums: Iterable[Checksum]) -> str | None:
        """Return what is wrong with the file; `None` if every sum is right."""
        for wanted in checksums:
            found = self.digest(wanted.algorithm)
            if found != wanted.digest:
                shown = "no sum" if found is None else found.hex()
                return (
                    f"its {wanted.algorithm} is {shown}; {wanted.source} says {wanted.digest.hex()}"
                )
        return None


def _hasher(algorithm: str) -> Hasher:
    if algorithm in _CRC_SIZES:
        return _Crc(algorithm)
    return hashlib.new(algorithm, usedforsecurity=False)


def parse_sha256(text: str) -> Checksum:
    """Return the sum that came with the order; raise `ValueError` where it is none."""
    if not _SHA256_HEX.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no SHA-256; expected 64 hexadecimal digits")
    return Checksum("sha256", bytes.fromhex(text), "the order")


def checksums_from_headers(
    headers: Mapping[str, str], etag: str = "", *, of_all: bool
) -> tuple[Checksum, ...]:
    """Return the sums that an answer tells of the whole file, without doubles.

    `headers` by names in lower case. `etag` is given only for objects of S3, where a plain one is
    the MD5; it is used where nothing better is there, for MD5 costs as much as fetching.
    `of_all`: the answer is a 200; of a 206 only what speaks of the whole object is taken.
    """
    found = _representation(headers.get("repr-digest", ""))
    if of_all:
        found += _one("md5", headers.get("content-md5", ""), "Content-MD5")
        if headers.get("x-amz-checksum-type", "").upper() != "COMPOSITE":
            for algorithm in _OF_AMAZON:
                name = _AMAZON + algorithm
                if name in headers:
                    found += _one(algorithm, headers[name], name)
    if not found and etag and not _encrypted(headers):
        plain = _PLAIN_ETAG.fullmatch(etag)
        found += [Checksum("md5", bytes.fromhex(plain[1]), "its ETag")] if plain else []
    return tuple(found)


def _encrypted(headers: Mapping[str, str]) -> bool:
    by_service = headers.get("x-amz-server-side-encryption", "").startswith("aws:")
    return by_service or bool(headers.get("x-amz-server-side-encryption-customer-algorithm", ""))


def _one(algorithm: str, text: str, source: str) -> list[Checksum]:
    """Return the sum in a header; nothing where it is absent, or of parts (`…-3`), or no sum."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return []
    return [Checksum(algorithm, digest, source)] if len(digest) == _SIZES[algorithm] else []


def _representation(text: str) -> list[Checksum]:
    found = []
    for item in text.split(","):
        match = _DICTIONARY_ITEM.fullmatch(item)
        if match and match[1] in _REPRESENTATION:
            found += _one(_REPRESENTATION[match[1]], match[2], "Repr-Digest")
    return found
