"""Encodes values as payloads, and decodes them: serialise, compress, sign.

A plain `int` stays an `int`, so that the store can count it; it is never signed. Every other value
becomes `bytes`: one header byte, the MAC if values are signed, the body. The cache's options, not the
payload, determine the expected header: a client that can write to the store cannot choose the
serializer or omit the signature.
"""

import hashlib
import hmac
import json
import math
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
from django.conf import settings

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.malformed import reason_to_reject
from cacheapp.backends.local.interruptions import raised_by_handler
from cacheapp.errors import ValueRefused

_FORMAT = 0xA0  # high nibble of the header: format version; never an ASCII digit or sign
_COMPRESSED = 0x08
_SIGNED = 0x04
_SERIALIZER_BITS = {"pickle": 0, "json": 1, "msgpack": 2}
_HEADERS = frozenset(
    _FORMAT | bits | flags
    for bits in _SERIALIZER_BITS.values()
    for flags in (0, _SIGNED, _COMPRESSED, _SIGNED | _COMPRESSED)
)
_MAC_BYTES = 16
_LARGE = 2**20  # bytes; signing and copying more takes milliseconds
_SHORT = 4096  # bytes; copying fewer is faster than a memoryview


class Rejected(Exception):
    """A payload that this cache did not write, or not with its present options, keys and classes."""


class OtherOptions(Rejected):
    """A payload of another release or alias: it differs in `serializer` or `signed`."""


def _loads_json(body: Any) -> Any:
    return json.loads(bytes(body))


def _dumps_json(value: Any) -> bytes:
    _refuse_inexact(value, "json", (str, int, float, bool, type(None)))
    try:
        # Not ASCII: two escaped halves of a surrogate pair would be decoded as one character.
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")  # as `json.loads` decodes it
    except (ValueError, RecursionError) as exc:  # a cycle, great depth, an int of 4300 digits
        _raise_if_interrupted(exc)
        raise ValueRefused(f"json cannot store {_type_of(value)}: {exc}") from exc


def _dumps_msgpack(value: Any) -> bytes:
    _refuse_inexact(value, "msgpack", (str, bytes, int, float, bool, type(None)))
    try:
        packed: bytes = msgpack.packb(value)
    except (OverflowError, ValueError, RecursionError) as exc:
        _raise_if_interrupted(exc)
        raise ValueRefused(f"msgpack cannot store {_type_of(value)}: {exc}") from exc
    return packed


def _loads_msgpack(body: Any) -> Any:
    return msgpack.unpackb(body, strict_map_key=False)


def _dumps_pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as exc:
        _raise_if_interrupted(exc)
        raise ValueRefused(f"pickle cannot store {_type_of(value)}: {exc}") from exc


_DUMPS: dict[str, Callable[[Any], bytes]] = {
    "pickle": _dumps_pickle,
    "json": _dumps_json,
    "msgpack": _dumps_msgpack,
}
_LOADS: dict[str, Callable[[Any], Any]] = {
    "pickle": pickle.loads,
    "json": _loads_json,
    "msgpack": _loads_msgpack,
}
SERIALIZERS = tuple(_DUMPS)


def _raise_if_interrupted(error: Exception) -> None:
    """Raise the error if a signal handler raised it: then the value is not the reason."""
    if raised_by_handler(error) is not None:
        raise error


def _type_of(value: Any) -> str:
    return f"a value of type {type(value).__qualname__}"


def _refuse_inexact(root: Any, serializer: str, scalars: tuple[type, ...]) -> None:
    """Raise `ValueRefused` unless the serializer would return an equal value of the same types.

    Types are compared exactly: a tuple would become a list, a subclass its base. A value that
    contains itself is left to the serializer, which refuses it.
    """
    todo = [root]
    seen: set[int] = set()  # ids of containers, which `root` keeps alive
    while todo:
        value = todo.pop()
        if type(value) in {list, dict}:
            if id(value) in seen:
                continue
            seen.add(id(value))
        if type(value) is list:
            todo.extend(value)
        elif type(value) is dict:
            if serializer == "json" and any(type(key) is not str for key in value):
                raise ValueRefused(
                    "json stores only dicts whose keys are all str; found another key"
                )
            todo.extend(value)
            todo.extend(value.values())
        elif type(value) not in scalars:
            raise ValueRefused(
                f"{serializer} would not return {_type_of(value)} unchanged; store a value of a "
                "simpler type, or use the pickle serializer"
            )
        elif serializer == "json" and type(value) is float and not math.isfinite(value):
            raise ValueRefused(f"json cannot store {value!r}")


class Codec:
    """Encodes and decodes the values of one cache. Immutable, so threads may share it.

    `compress_min_bytes`: bodies of at least this many bytes are compressed (zlib) if that makes
    them smaller. `None`: no compression.
    """

    def __init__(self, serializer: str, compress_min_bytes: int | None, *, signed: bool) -> None:
        self._serializer = serializer
        self.dumps = _DUMPS[serializer]
        """Serialise a value to a body; raise `ValueRefused`."""
        self.loads = _LOADS[serializer]
        """Deserialise a body that is neither signed nor compressed."""
        self._compress_min_bytes = compress_min_bytes
        # Keyed hashes without input; the first one signs, all verify.
        self._macs = [_keyed(secret) for secret in _secrets()] if signed else []
        self.header = _FORMAT | _SERIALIZER_BITS[serializer] | (_SIGNED if signed else 0)
        """The first byte of every payload that is neither an integer nor compressed."""
        self._plain = bytes([self.header])
        self._packed = bytes([self.header | _COMPRESSED])
        self.bare = not signed and compress_min_bytes is None
        """Whether every payload is an integer, or `unsigned_head` plus the result of `dumps`."""
        self.unsigned_head = b"" if signed else self._plain
        """The bytes before such a body; empty if values are signed."""
        self.body_at = 1 + (_MAC_BYTES if signed else 0)
        """Where the body begins in a payload."""

    def encode(
        self, key: str, value: Any, check_size: Callable[[int], None] | None = None
    ) -> Payload:
        """Return the payload of `value` under the final `key`; raise `ValueRefused`.

        `check_size` gets the size of a large body before anything else is done with it.
        """
        if type(value) is int:
            return value
        body = self.dumps(value)
        if self.bare:
            return self._plain + body
        header = self._plain
        if self._compress_min_bytes is not None and len(body) >= self._compress_min_bytes:
            packed = zlib.compress(body, 1)
            if len(packed) < len(body):
                header, body = self._packed, packed
        if check_size is not None and len(body) > _LARGE:
            check_size(len(body))
        if self._macs:
            return header + _mac(self._macs[0], key, header, body) + body
        return header + body

    def decode(self, key: str, payload: Payload) -> Any:
        """Return the value; raise `Rejected`, before unpickling, if this cache did not write it.

        `Rejected` is also raised for a malformed body, and for a class that no longer exists. Any
        other exception that decoding raises reaches the caller: the value is sound.
        """
        body: Any
        if type(payload) is bytes and payload[:1] == self.unsigned_head:  # most hits
            body = payload[1:] if len(payload) < _SHORT else memoryview(payload)[1:]
        elif type(payload) is int:
            return payload
        else:
            assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
            body = self.verified_body(key, payload)
        try:
            return self.loads(body)
        except Exception as exc:
            reason = self.reason_to_reject(body, exc)
            if reason is None:
                raise
            raise Rejected(reason) from exc

    def verified_body(self, key: str, payload: bytes) -> Any:
        """Return the body, decompressed, if header and signature are right; raise `Rejected`."""
        if not payload or payload[0] & ~_COMPRESSED != self.header:
            error = OtherOptions if payload and payload[0] in _HEADERS else Rejected
            raise error(f"header {payload[:1].hex() or 'missing'}, expected {self.header:02x}")
        body = memoryview(payload)[self.body_at :]
        if self._macs:
            found = payload[1 : self.body_at]
            header = payload[:1]
            for keyed in self._macs:
                if hmac.compare_digest(found, _mac(keyed, key, header, body)):
                    break
            else:
                raise Rejected("signature does not match")
        if not payload[0] & _COMPRESSED:
            return body
        try:
            return zlib.decompress(body)
        except zlib.error as exc:
            raise Rejected(f"zlib: {exc}") from exc

    def is_compressed(self, payload: bytes) -> bool:
        """Return True if the body of this cache's own payload is compressed."""
        return bool(payload[0] & _COMPRESSED)

    def reason_to_reject(self, body: Any, error: Exception) -> str | None:
        """Return what makes a body foreign for which `loads` raised `error`; `None` if it is sound."""
        return reason_to_reject(self._serializer, body, error)


def _secrets() -> list[str | bytes]:
    """Return Django's secret keys: the first one signs, all verify."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def _keyed(secret: str | bytes) -> "hashlib.blake2b":
    """Return a hash with a key for this purpose, derived from one of Django's."""
    material = secret.encode() if isinstance(secret, str) else secret
    signing_key = hmac.digest(material, b"cacheapp.signed", "sha256")
    return hashlib.blake2b(key=signing_key, digest_size=_MAC_BYTES)


def _mac(keyed: "hashlib.blake2b", key: str, header: bytes, body: Any) -> bytes:
    """Return the keyed BLAKE2b of the payload and the cache key that it is stored under.

    The key's length comes first, so that no two pairs of key and body give the same input.
    """
    name = key.encode("utf-8", "surrogatepass")
    digest = keyed.copy()
    digest.update(b"%d:%b%b" % (len(name), name, header))
    digest.update(body)
    return digest.digest()
