"""Reads the entries of `CACHES`. An unknown or ill-typed option is an error that names it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from cacheapp.backends.core.codec import SERIALIZERS

Reader = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option. `reader` returns its value, or raises `ValueError(expected)`."""

    reader: Reader
    default: Any
    secret: bool = False
    """Whether its value may contain a password; no message shows such a value."""


def boolean(value: Any) -> bool:
    """Read a bool; a merely truthy value is an error."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def count(minimum: int) -> Reader:
    """Return a reader of whole numbers of at least `minimum`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"a whole number of at least {minimum}")
        return value

    return read


def count_or_none(minimum: int) -> Reader:
    """Return a reader of `None` or whole numbers of at least `minimum`."""
    read_count = count(minimum)

    def read(value: Any) -> int | None:
        try:
            return None if value is None else read_count(value)
        except ValueError as exc:
            raise ValueError(f"None or {exc}") from None

    return read


def seconds(value: Any) -> float:
    """Read a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError("a number of seconds above 0")
    return float(value)


def one_of(*choices: str) -> Reader:
    """Return a reader of one of the choices."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(map(repr, choices)))
        return str(value)

    return read


def anything(value: Any) -> Any:
    """Return the value unchanged: a library validates it."""
    return value


COMMON: Mapping[str, Option] = {
    "serializer": Option(one_of(*SERIALIZERS), "pickle"),
    "compress_min_bytes": Option(count_or_none(0), None),
    "lease_time": Option(seconds, 5.0),
    "lease_wait": Option(seconds, 10.0),
    "refresh": Option(one_of("thread", "inline"), "thread"),
    "signed": Option(boolean, default=False),
}


def read_options(found: Any, known: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """Return the options, with defaults for the others, and one sentence per mistake."""
    values = {name: option.default for name, option in known.items()}
    if not isinstance(found, Mapping):
        return values, [f"OPTIONS is a {type(found).__name__}; expected a dict"]
    mistakes = []
    for name, value in found.items():
        if name not in known:
            expected = ", ".join(sorted(known))
            mistakes.append(f"OPTIONS[{name!r}] is not an option; expected one of {expected}")
            continue
        try:
            values[name] = known[name].reader(value)
        except ValueError as exc:
            found_value = f"a {type(value).__name__}" if known[name].secret else repr(value)
            mistakes.append(f"OPTIONS[{name!r}] is {found_value}; expected {exc}")
    return values, mistakes


PARAMS = frozenset(
    [
        "BACKEND",
        "LOCATION",
        "TIMEOUT",
        "OPTIONS",
        "KEY_PREFIX",
        "VERSION",
        "KEY_FUNCTION",
        "REVERSE_KEY_FUNCTION",
    ]
)


def read_params(params: Mapping[str, Any]) -> list[str]:
    """Return one sentence per mistake in the arguments beside OPTIONS.

    `BaseCache` would silently replace an invalid TIMEOUT with 300.
    """
    mistakes = [
        f"{name!r} is not a cache argument; expected one of {', '.join(sorted(PARAMS))}"
        for name in params
        if name not in PARAMS
    ]
    timeout = params.get("TIMEOUT", 300)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
        mistakes.append(f"TIMEOUT is {timeout!r}; expected None or a number of seconds")
    version = params.get("VERSION", 1)
    if isinstance(version, bool) or not isinstance(version, int):
        mistakes.append(f"VERSION is {version!r}; expected a whole number")
    prefix = params.get("KEY_PREFIX", "")
    if not isinstance(prefix, str):
        mistakes.append(f"KEY_PREFIX is {prefix!r}; expected a str")
    return mistakes
