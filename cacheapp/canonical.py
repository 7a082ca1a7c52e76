"""Encodes values as keys that are equal in every process, and different for different values.

Pure. It does not use `id`, `repr` or `hash`, which differ between processes or lose information.
The encoding is injective: every part begins with a tag for its type and with its length, so no part
is a prefix of another and parts can be concatenated. Values that a function can distinguish have
different encodings (`1`, `1.0`, `True`; `Decimal("1.0")`, `Decimal("1.00")`; one instant in two
time zones), even if Python considers them equal: that costs an entry, never a wrong value.
"""

import datetime as dt
import enum
import hashlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db.models import Model

_PLAIN = re.compile(
    rb"[A-Za-z0-9_.:;,=+@/<>-]*"
)  # no "#", and no special character of memcached or globs
_DIGEST_BYTES = 20

# Not unique: every program has a module of one of these names.
_MAIN_MODULES = frozenset({"__main__", "__mp_main__"})


class NotCanonical(TypeError):
    """The value has no encoding that is the same in every process; the message describes it."""


def encode(value: Any) -> bytes:
    """Return the value's encoding; raise `NotCanonical` for a type that has none.

    Types are compared exactly: a subclass may behave differently from its base.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    if isinstance(value, enum.Enum):
        return _enum_member(value)
    if isinstance(value, Model):  # by __class__, so that it sees through request.user
        return _model(value)
    raise NotCanonical(f"a value of type {_type_name(type(value))}")


def snapshot(value: Any) -> Any:
    """Return the value with copies of its lists, sets and dicts, which no other code can change."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind(map(snapshot, value))
    if kind is dict:
        return {key: snapshot(inner) for key, inner in value.items()}
    return set(value) if kind is set else value


def key_part(text: bytes, most: int = 80) -> str:
    """Return `text` itself if it is short and plain, otherwise its digest, which begins with "#"."""
    if len(text) <= most and _PLAIN.fullmatch(text):
        return text.decode("ascii")
    return "#" + hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()


def name_of(found: Any) -> str:
    """Return the module and qualified name of a function or class, as a part of a key.

    Raises `ValueError` if the name may not be unique: for lambdas, definitions inside a function,
    objects without a name, and definitions in the main module.
    """
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"an object of type {type(found).__qualname__} without its own name")
    if module in _MAIN_MODULES:
        raise ValueError(f"{name} of {module}, which other processes know by another name")
    if "<" in name:
        raise ValueError(f"{module}.{name}, whose name may not be unique")
    return key_part(f"{module}.{name}".encode("utf-8", "surrogatepass"), most=100)


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _tagged(tag: bytes, body: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(body), body)


def _integer(value: int) -> bytes:
    if -(2**63) <= value < 2**63:
        return b"i%d;" % value
    return _tagged(b"I", f"{value:x}".encode())  # Python refuses thousands of decimal digits


def _text(value: str) -> bytes:
    return _tagged(b"s", value.encode("utf-8", "surrogatepass"))


def _decimal(value: Decimal) -> bytes:
    # Not str(): how it writes an exponent depends on the thread's context.
    sign, digits, exponent = value.as_tuple()
    return _tagged(b"D", f"{sign},{''.join(map(str, digits))},{exponent}".encode())


def _time(tag: bytes, value: dt.datetime | dt.time) -> bytes:
    bare = value.replace(tzinfo=None).isoformat().encode()
    return _tagged(tag, b"%b,%d,%b" % (bare, value.fold, _zone(value.tzinfo)))


def _zone(zone: dt.tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is dt.timezone:
        return _text(f"{zone.utcoffset(None) // dt.timedelta(microseconds=1)} {zone.tzname(None)}")
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return _text(zone.key)
    raise NotCanonical(f"a time zone of type {_type_name(type(zone))}")


def _duration(value: dt.timedelta) -> bytes:
    return b"d%d;" % (value // dt.timedelta(microseconds=1))


def _enum_member(value: enum.Enum) -> bytes:
    kind = type(value)
    try:
        name = name_of(kind)
    except ValueError as exc:
        raise NotCanonical(f"a member of the enum {exc}") from exc
    # A combination of flags may have no name, but always has a number.
    which = encode(value.value) if isinstance(value, enum.Flag) else _text(value.name)
    return _tagged(b"E", _text(name) + which)


def _model(value: Model) -> bytes:
    pk = value.pk
    missing = pk is None or (type(pk) is tuple and None in pk)
    if missing or value._state.adding:  # noqa: SLF001 (a UUID pk exists before its row)
        raise NotCanonical(f"an unsaved {value._meta.label}")  # noqa: SLF001 (documented by Django)
    return _tagged(b"M", _text(value._meta.label) + encode(pk))  # noqa: SLF001


def _sequence(tag: bytes) -> Callable[[Any], bytes]:
    return lambda values: _tagged(tag, b"".join(map(encode, values)))


def _unordered(tag: bytes) -> Callable[[Any], bytes]:
    return lambda values: _tagged(tag, b"".join(sorted(map(encode, values))))


def _mapping(value: dict[Any, Any]) -> bytes:
    pairs = sorted(encode(key) + encode(inner) for key, inner in value.items())
    return _tagged(b"m", b"".join(pairs))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n;",
    bool: lambda value: b"b1;" if value else b"b0;",
    int: _integer,
    float: lambda value: _tagged(b"f", value.hex().encode()),
    str: _text,
    bytes: lambda value: _tagged(b"y", value),
    dt.date: lambda value: _tagged(b"a", value.isoformat().encode()),
    dt.datetime: lambda value: _time(b"t", value),
    dt.time: lambda value: _time(b"c", value),
    dt.timedelta: _duration,
    Decimal: _decimal,
    uuid.UUID: lambda value: _tagged(b"u", value.hex.encode()),
    tuple: _sequence(b"T"),
    list: _sequence(b"L"),
    set: _unordered(b"S"),
    frozenset: _unordered(b"F"),
    dict: _mapping,
}
