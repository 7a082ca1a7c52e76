"""Values of django-redis and of Django's own RedisCache: how they are recognised, kept and read.

Both store the result of `pickle.dumps`, django-redis perhaps compressed by zlib, and integers in
decimal as here. Without `OPTIONS["reads_django_redis"]` these values are misses that stay.

With it, values are written so that those backends read them as well: the pickle comes first, then
what this cache puts before it otherwise (header and signature). `pickle.loads` ignores what follows
a pickle. This cache reads that form with and without the option, so that no entry is lost when the
option is removed.
"""

import copyreg
import datetime as dt
import decimal
import functools
import io
import pickle
import pickletools
import zlib
from collections.abc import Callable, Iterator, Sized
from typing import Any

from cacheapp.backends.core.codec import Codec, OtherOptions, Rejected
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.redis.pickle_cost import Hashing

_PICKLE = pickle.PROTO  # the first byte from protocol 2 on
_ZLIB = 0x78  # of a window of 32 KiB, which is what `zlib.compress` makes
_FIRST_BYTES = frozenset([_PICKLE[0], _ZLIB])

_PLAIN_CLASSES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        *(set, frozenset, complex, decimal.Decimal),
        *(dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone),
    )
}
"""What an unsigned pickle may name. They are written in C: creating one runs no other code, and a
pickle cannot set their attributes."""

_BYTES = ("_codecs", "encode")
"""What protocol 2, which has no bytes, makes them of a text with. Without bytes it calls `bytes()`."""

_MOST_BYTES = 2**20
_MOST_OPCODES = 100_000
_MOST_TUPLES = 10_000
_MOST_REPEATED = 1_000_000
_MOST_GIVEN = 2 * _MOST_BYTES
"""Bounds of an unsigned pickle. The hash of a tuple calls the hashes of its items on the stack of C,
which has room for many times this number."""

_NESTING = frozenset(["TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "REDUCE"])
_PUTS = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_REFUSED = frozenset(
    ["BUILD", "DUP", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"]
)  # no value of `_PLAIN_CLASSES` is written with them


class _ClassRefused(Exception):
    """An unsigned pickle names a class that is not plain data."""


class _Unsafe(Exception):
    """An unsigned value is no pickle or exceeds a bound: reading it could exhaust memory or the stack."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickle of plain data only, because anyone who can write to the server may have made it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._given = 0

    def find_class(self, module_name: str, global_name: str) -> Callable[..., Any]:
        """Return what creates a value of `_PLAIN_CLASSES`; raise `_ClassRefused` for any other class."""
        if (module_name, global_name) == _BYTES:
            return functools.partial(self._create, _latin1)
        if module_name == "__builtin__":  # its name in protocol 2
            module_name = "builtins"
        if (module_name, global_name) == ("builtins", "bytes"):
            return _no_bytes
        try:
            return functools.partial(self._create, _PLAIN_CLASSES[module_name, global_name])
        except KeyError:
            raise _ClassRefused(f"{module_name}.{global_name}") from None

    def _create(self, kind: Callable[..., Any], *arguments: Any) -> Any:
        """Create a value. A pickle may give one large argument again and again: that is bounded."""
        self._given += sum(len(it) for it in arguments if isinstance(it, Sized))
        if self._given > _MOST_GIVEN:
            raise _Unsafe("arguments that are given too often")
        return kind(*arguments)


def _no_bytes() -> bytes:
    return b""


def _latin1(text: str, encoding: str) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise _ClassRefused(".".join(_BYTES))
    return text.encode("latin1")


def _inflated(payload: bytes) -> bytes:
    """Return the content of a zlib stream; raise `_Unsafe` rather than exceed the bound."""
    stream = zlib.decompressobj()
    body = stream.decompress(payload, _MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise _Unsafe(f"more than {_MOST_BYTES} bytes when decompressed")
    if not stream.eof:
        raise zlib.error("incomplete or truncated stream")
    return body


def _parts(body: bytes) -> Iterator[tuple[Any, Any, int | None]]:
    """Return the parts of a pickle without loading it, each with its argument and position."""
    try:
        yield from pickletools.genops(body)
    except ValueError as exc:
        raise _Unsafe(f"no pickle: {exc}") from exc


def _checked(body: bytes) -> bytes:
    """Return the pickle without its frames; raise `_Unsafe` if reading it could be harmful.

    A frame that ends within an argument would make the unpickler skip bytes that are seen here.
    """
    if len(body) > _MOST_BYTES:
        raise _Unsafe(f"more than {_MOST_BYTES} bytes")
    kept, begin, nested, stop = [], 0, 0, 0
    hashing = Hashing()
    for count, (opcode, arg, position) in enumerate(_parts(body), 1):
        name, stop = opcode.name, position or 0
        nested += name in _NESTING
        if count > _MOST_OPCODES or nested > _MOST_TUPLES:
            raise _Unsafe("more parts than an unsigned value may have")
        if name in _REFUSED or (name in _PUTS and not 0 <= int(arg or 0) <= _MOST_OPCODES):
            raise _Unsafe(f"{name}, which no plain value contains like this")
        try:
            hashing.follow(opcode, arg)
        except IndexError as exc:
            raise _Unsafe(f"no pickle: {exc}") from exc
        if hashing.repeated > _MOST_REPEATED:
            raise _Unsafe("values that are named too often")
        if name == "FRAME":
            kept.append(body[begin:stop])
            begin = stop + 9  # the opcode and the length
    return b"".join([*kept, body[begin : stop + 1]])


def _load_plain(body: bytes) -> Any:
    """Return the value of a pickle of plain data."""
    body = _checked(body)
    # A class named by a number that is in this cache would not be looked up by `find_class`.
    copyreg.clear_extension_cache()
    return _PlainUnpickler(io.BytesIO(body)).load()


class RedisCodec(Codec):
    """The codec of a RedisCache, which never takes a value of django-redis for one to remove."""

    def __init__(
        self,
        serializer: str,
        compress_min_bytes: int | None,
        *,
        signed: bool,
        reads_django_redis: bool = False,
    ) -> None:
        super().__init__(serializer, compress_min_bytes, signed=signed)
        self._reads = reads_django_redis
        self._signed = signed
        self._pickles = serializer == "pickle"
        self.for_members: Codec = (
            Codec(serializer, compress_min_bytes, signed=signed) if reads_django_redis else self
        )
        """Encodes members of collections, which have the same bytes with and without the option."""

    def encode(
        self, key: str, value: Any, check_size: Callable[[int], None] | None = None
    ) -> Payload:
        """Return the payload; with `reads_django_redis` in the form that django-redis reads."""
        payload = super().encode(key, value, check_size)
        if not self._reads or type(payload) is not bytes:
            return payload
        return payload[self.body_at :] + payload[: self.body_at]

    def decode(self, key: str, payload: Payload) -> Any:
        """Return the value; raise `OtherOptions` for one of django-redis that is not to be read."""
        if type(payload) is not bytes or not payload or payload[0] not in _FIRST_BYTES:
            return super().decode(key, payload)
        if self._pickles and payload[-self.body_at :][:1] == self._plain:
            try:
                return super().decode(
                    key, payload[-self.body_at :] + payload[: -self.body_at]
                )  # this cache wrote it, with `reads_django_redis`
            except Rejected:
                pass  # by chance, that byte of a compressed value equals the header
        if not self._reads:
            raise OtherOptions(
                "a value of django-redis or Django's RedisCache; OPTIONS['reads_django_redis'] reads these"
            )
        return self._load_unsigned(payload)

    def _load_unsigned(self, payload: bytes) -> Any:
        """Return a value of django-redis: any if values are not signed, else plain data only."""
        try:
            inflate = _inflated if self._signed else zlib.decompress
            body = inflate(payload) if payload[0] == _ZLIB else payload
            return _load_plain(body) if self._signed else self.loads(body)
        except _Unsafe as exc:
            raise OtherOptions(f"an unsigned value of django-redis: {exc}") from exc
        except _ClassRefused as exc:
            raise OtherOptions(
                f"a value of django-redis that contains {exc}, which is read only if it is signed"
            ) from exc
        except Exception as exc:
            if isinstance(exc, zlib.error):
                raise OtherOptions(f"zlib: {exc}") from exc
            if (reason := self.reason_to_reject(body, exc)) is None:
                raise
            raise OtherOptions(reason) from exc
