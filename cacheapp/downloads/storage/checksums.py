"""The checksums a file must match: those given with the request and those sent by the server.

A checksum counts only if it covers the whole file as stored: not a part (`Content-MD5` and S3's
headers of a 206), not checksums of parts (S3's composite ones, ETags of multipart uploads), not the
ciphertext (ETags of objects encrypted with KMS or customer keys).
"""

import base64
import binascii
import dataclasses
import functools
import hashlib
import importlib.util
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

Bytes = bytes | bytearray | memoryview

_HEX = re.compile("[0-9a-fA-F]+")
_PLAIN_ETAG = re.compile('"?([0-9a-fA-F]{32})"?')
_CRC_SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8}
_SIZES = {"sha256": 32, "sha512": 64, "sha1": 20, "md5": 16, **_CRC_SIZES}
GIVEN = ("sha256", "sha512", "sha1", "md5")
"""Algorithms of checksums that are given with the request."""
_BY_DIGITS = {2 * _SIZES[name]: name for name in GIVEN}
_SMALL_BYTES, _HELD_LOCK_BYTES = 16 * 1024, 2047
_S3_PREFIX = "x-amz-checksum-"
_S3_ALGORITHMS = ("sha256", "sha1", *_CRC_SIZES)
_REPRESENTATION = {"sha-256": "sha256", "sha-512": "sha512"}  # RFC 9530
_DICTIONARY_ITEM = re.compile(r"\s*([a-z0-9-]+)=:([A-Za-z0-9+/=]+):\s*")


@dataclasses.dataclass(frozen=True)
class Checksum:
    """One checksum that the file must match."""

    algorithm: str
    digest: bytes
    source: str
    """Where it comes from, for the error message."""


class Hasher(Protocol):
    """The part of `hashlib`'s interface used here."""

    def update(self, data: Bytes, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""


class _Crc:
    """A CRC, computed by a function of the next bytes and the value so far."""

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
    # Amazon's own library: 12 MB and 40 ms, loaded only for objects with such a checksum.
    from awscrt import checksums  # noqa: PLC0415

    found: Callable[[Bytes, int], int] = getattr(checksums, algorithm)
    return found


class RunningChecksums:
    """The checksums of the bytes received so far. Large updates release the GIL."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashers: dict[str, Hasher] = {name: _hasher(name) for name in algorithms}

    def update(self, data: Bytes) -> None:
        """Add the next bytes.

        `hashlib` releases the interpreter lock for 2,048 bytes and more, then waits to reacquire
        it: with many threads, longer than hashing a few bytes takes. So small data is added in
        pieces below that.
        """
        pieces = [data]
        if len(data) <= _SMALL_BYTES:
            pieces = [
                data[at : at + _HELD_LOCK_BYTES] for at in range(0, len(data), _HELD_LOCK_BYTES)
            ]
        for hasher in self._hashers.values():
            for piece in pieces:
                hasher.update(piece)

    @property
    def is_empty(self) -> bool:
        """Whether no checksum is computed."""
        return not self._hashers

    def digest(self, algorithm: str) -> bytes | None:
        """Return the checksum so far; `None` if it is not computed."""
        hasher = self._hashers.get(algorithm)
        return None if hasher is None else hasher.digest()

    def has(self, algorithms: Iterable[str]) -> bool:
        """Return whether all these checksums are computed."""
        return self._hashers.keys() >= set(algorithms)

    def mismatch(self, checksums: Iterable[Checksum]) -> str | None:
        """Return a message for the first checksum that differs; `None` if all match."""
        for wanted in checksums:
            found = self.digest(wanted.algorithm)
            if found != wanted.digest:
                shown = "unknown" if found is None else found.hex()
                expected = f"expected {wanted.digest.hex()} from {wanted.source}"
                return f"its {wanted.algorithm} is {shown}; {expected}"
        return None


def _hasher(algorithm: str) -> Hasher:
    if algorithm in _CRC_SIZES:
        return _Crc(algorithm)
    return hashlib.new(algorithm, usedforsecurity=False)


def read_checksum(text: str, algorithm: str = "") -> str:
    """Return the canonical form, `sha256:<hex>`, of a given checksum.

    Accepts `sha256:`, `sha512:`, `sha1:` and `md5:` before hexadecimal digits. Without a prefix, the
    algorithm is the given one, or follows from the number of digits. Raise `ValueError`.
    """
    prefix, colon, digits = text.rpartition(":")
    name = (prefix or algorithm).lower().replace("-", "") if colon or algorithm else ""
    if not colon and not algorithm:
        name = _BY_DIGITS.get(len(digits), "")
    if name not in GIVEN or len(digits) != 2 * _SIZES[name] or not _HEX.fullmatch(digits):
        raise ValueError(f"{text[:140]!r} is no checksum; expected {_expected(name)}")
    return f"{name}:{digits.lower()}"


def _expected(algorithm: str) -> str:
    if algorithm in GIVEN:
        return f"{2 * _SIZES[algorithm]} hexadecimal digits for {algorithm}"
    return f"{', '.join(f'{name}:' for name in GIVEN)} and hexadecimal digits"


def parse_checksum(text: str) -> Checksum:
    """Return the checksum given with the request, in any form of `read_checksum`."""
    algorithm, _, digits = read_checksum(text).partition(":")
    return Checksum(algorithm, bytes.fromhex(digits), "the request")


def checksums_from_headers(
    headers: Mapping[str, str], etag: str = "", *, whole_object: bool
) -> tuple[Checksum, ...]:
    """Return the checksums of the whole file in a response's headers, without duplicates.

    `headers` by lower-case name. Pass `etag` only for S3 objects, where a plain ETag mostly is the
    MD5, and if a wrong one has no other effect than fetching the file again. It is used only without
    a better checksum.
    `whole_object`: the response is a 200; of a 206 only headers about the whole object are used.
    """
    found = _from_repr_digest(headers.get("repr-digest", ""))
    if whole_object:
        found += _decode("md5", headers.get("content-md5", ""), "Content-MD5")
        if headers.get("x-amz-checksum-type", "").upper() != "COMPOSITE":
            for algorithm in _S3_ALGORITHMS:
                name = _S3_PREFIX + algorithm
                if name in headers and _is_computable(algorithm):
                    found += _decode(algorithm, headers[name], name)
    if not found and etag and not _encrypted(headers):
        plain = _PLAIN_ETAG.fullmatch(etag)
        found += [Checksum("md5", bytes.fromhex(plain[1]), "its ETag")] if plain else []
    return tuple(found)


@functools.cache
def _is_computable(algorithm: str) -> bool:
    """Return False for an algorithm of awscrt (the extra `s3`) if that is not installed."""
    plain = algorithm not in _CRC_SIZES or algorithm == "crc32"
    return plain or importlib.util.find_spec("awscrt") is not None


def _encrypted(headers: Mapping[str, str]) -> bool:
    by_service = headers.get("x-amz-server-side-encryption", "").startswith("aws:")
    return by_service or bool(headers.get("x-amz-server-side-encryption-customer-algorithm", ""))


def _decode(algorithm: str, text: str, source: str) -> list[Checksum]:
    """Return the checksum in a header, or nothing if it is absent, invalid or of parts (`…-3`)."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return []
    return [Checksum(algorithm, digest, source)] if len(digest) == _SIZES[algorithm] else []


def _from_repr_digest(text: str) -> list[Checksum]:
    found = []
    for item in text.split(","):
        match = _DICTIONARY_ITEM.fullmatch(item)
        if match and match[1] in _REPRESENTATION:
            found += _decode(_REPRESENTATION[match[1]], match[2], "Repr-Digest")
    return found
