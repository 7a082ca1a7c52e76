"""Reads the entries of `CACHES`. An unknown or ill-typed option is an error that names it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cacheapp.backends.core.codec import SERIALIZERS
from cacheapp.typed_values import (
    Reader,
    anything,
    boolean,
    none_or,
    number,
    one_of,
    read_values,
    seconds,
    text,
    whole_number,
)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option. `reader` returns its value, or raises `ValueError(expected)`."""

    reader: Reader
    default: Any
    secret: bool = False
    """Whether its value may contain a password; no message shows such a value."""


COMMON: Mapping[str, Option] = {
    "serializer": Option(one_of(*SERIALIZERS), "pickle"),
    "compress_min_bytes": Option(none_or(whole_number(0)), None),
    "lease_time": Option(seconds, 5.0),
    "lease_wait": Option(seconds, 10.0),
    "refresh": Option(one_of("thread", "inline"), "thread"),
    "signed": Option(boolean, default=False),
}


def read_options(found: Any, known: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """Return the options, with defaults for the others, and one sentence per mistake."""
    defaults = {name: option.default for name, option in known.items()}
    if not isinstance(found, Mapping):
        return defaults, [f"OPTIONS is of type {type(found).__name__}; expected a dict"]
    readers = {name: option.reader for name, option in known.items()}
    secret = {name for name, option in known.items() if option.secret}
    values, mistakes = read_values(found, readers, "an option", secret=secret)
    return defaults | values, [f"OPTIONS[{it.name!r}] {it.error}" for it in mistakes]


def _timeout(value: Any) -> float:
    try:
        return number(value)
    except ValueError as exc:
        raise ValueError(f"{exc} of seconds") from None


_PARAMS: Mapping[str, Reader] = {
    "BACKEND": anything,
    "LOCATION": anything,
    "TIMEOUT": none_or(_timeout),
    "OPTIONS": anything,
    "KEY_PREFIX": text,
    "VERSION": whole_number(),
    "KEY_FUNCTION": anything,
    "REVERSE_KEY_FUNCTION": anything,
}


def read_params(params: Mapping[str, Any]) -> list[str]:
    """Return one sentence per mistake in the arguments beside OPTIONS.

    `BaseCache` would silently replace an invalid TIMEOUT with 300.
    """
    _values, mistakes = read_values(params, _PARAMS, "a cache argument")
    return [f"{it.name} {it.error}" for it in mistakes]
