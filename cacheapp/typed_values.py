"""Read typed values from settings, options, request bodies, queries and records, and collect all mistakes. Pure.

A reader takes a raw value and returns the typed one; it raises `ValueError` with what it expects, such
as "a whole number of at least 1". Each message has one form: what was found, then what was expected.
"""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Reader = Callable[[Any], Any]
T = TypeVar("T")

_MAX_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One name that is unknown, or has a value that its reader does not expect."""

    name: str
    error: str
    """Follows the name in a sentence: `is 0; expected a whole number of at least 1`."""


def read_values(
    found: Mapping[Any, Any],
    readers: Mapping[str, Reader],
    what: str,
    *,
    secret: Container[str] = (),
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], list[Mistake]]:
    """Return the values that could be read, and the mistakes in the others.

    `what` completes the message about an unknown name: `a setting`, `a field`. The values of
    `secret` names never appear in a message, only their types. `elsewhere` are names that other
    packages have, with what takes their place here.
    """
    values: dict[str, Any] = {}
    mistakes = []
    for name, value in found.items():
        if name not in readers and name in elsewhere:
            mistakes.append(Mistake(name, f"is not {what} here; expected {elsewhere[name]}"))
            continue
        if name not in readers:
            mistakes.append(Mistake(str(name), f"is not {what}; {_meant(str(name), readers)}"))
            continue
        try:
            values[name] = readers[name](value)
        except ValueError as exc:
            shown = f"of type {type(value).__name__}" if name in secret else show(value)
            mistakes.append(Mistake(name, f"is {shown}; expected {exc}"))
    return values, mistakes


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a question for the one name that is nearly this one; else the list of all."""
    spelled = {each.lower(): each for each in known}
    for near in difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.8):
        return f"did you mean {spelled[near]}?"
    return f"expected one of {', '.join(sorted(spelled.values()))}"


def show(value: Any) -> str:
    """Return a value as messages show it: its `repr`, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def anything(value: Any) -> Any:
    """Accept any value."""
    return value


def boolean(value: Any) -> bool:
    """Read a `bool`; 0 and 1 are refused."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def whole_number(lowest: int | None = None, highest: int | None = None) -> Reader:
    """Return a reader of an `int` in a range that includes both ends; a `bool` is refused."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(expected)
        if (lowest is not None and value < lowest) or (highest is not None and value > highest):
            raise ValueError(expected)
        return value

    expected = "a whole number"
    if lowest is not None:
        expected += f" of at least {lowest}" if highest is None else f" from {lowest} to {highest}"
    return read


def digits(lowest: int, highest: int) -> Reader:
    """Return a reader of the digits of a whole number from `lowest`, 0 or more, to `highest`."""
    read_number = whole_number(lowest, highest)

    def read(value: str) -> int:
        # The digits are counted first, because int() of a megabyte of them takes long.
        if value.isascii() and value.isdigit() and len(value) <= len(str(highest)):
            return int(read_number(int(value)))
        return int(read_number(None))

    return read


def number(value: Any) -> float:
    """Read an `int` or a `float`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    return value


def seconds(value: Any) -> float:
    """Read a finite number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError("a number of seconds above 0")
    return float(value)


_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)(?:([kmgtKMGT])(i?B)?|B)?(?:/s)?")
_LEAST_RATE, _MOST_RATE = 1024, 2**50


def byte_rate(value: Any) -> int:
    """Read bytes per second: an `int`, or a `str` such as "500k" or "10MiB/s".

    `k`, `M`, `G` and `T` are powers of 1024, as for curl, and so are `KiB` to `TiB`; `kB` to `TB`
    are powers of 1000.
    """
    found = value
    if isinstance(value, str) and (match := _RATE.fullmatch(value.replace(" ", ""))):
        number, prefix, unit = match.groups()
        base = 1000 if unit == "B" else 1024
        found = int(float(number) * base ** (" KMGT".index(prefix.upper()) if prefix else 0))
    if (
        isinstance(found, bool)
        or not isinstance(found, int)
        or not _LEAST_RATE <= found <= _MOST_RATE
    ):
        raise ValueError(
            f"bytes per second, at least {_LEAST_RATE}: a whole number, or a str such as '500k' or '10MiB/s'"
        )
    return found


def text(value: Any) -> str:
    """Read a `str`."""
    if not isinstance(value, str):
        raise ValueError("a str")
    return value


_NOT_IN_A_LINE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, line ends, what changes the direction of the text around it, and half characters."""


def line_of_text(most: int) -> Reader:
    """Return a reader of one line of at most `most` characters; spaces at its ends are removed."""

    def read(value: Any) -> str:
        found = value.strip(" ") if isinstance(value, str) else None
        if found is None or len(found) > most or _NOT_IN_A_LINE.search(found):
            raise ValueError(f"one line of at most {most} characters, without control characters")
        return found

    return read


def list_of_str(value: Any) -> list[str]:
    """Read a `list` of `str`."""
    if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
        raise ValueError("a list of str")
    return value


def one_of(*choices: str) -> Reader:
    """Return a reader of one of the choices."""
    known = [str(choice) for choice in choices]

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError("one of " + ", ".join(map(repr, known)))
        return str(value)

    return read


def none_or(read_value: Reader) -> Reader:
    """Return a reader of `None` or what the other reader accepts."""

    def read(value: Any) -> Any:
        try:
            return None if value is None else read_value(value)
        except ValueError as exc:
            raise ValueError(f"None or {exc}") from None

    return read


def read_dataclass(kind: type[T], raw: Any) -> T:
    """Return a dataclass from its fields in a JSON object; `ValueError` names the first mistake.

    Of a field that contains others, such as a tuple, only the outer type is compared.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{show(raw)}; expected the fields of a {kind.__name__}")
    hashable: Any = kind
    for name, hint in _types_of(hashable).items():
        if name in raw and not _has_type(raw[name], hint):
            # From Python 3.14 on, unions too have a name: "Union".
            is_union = isinstance(hint, UnionType)
            shown = str(hint) if is_union else getattr(hint, "__name__", str(hint))
            raise ValueError(f"{name!r} is {show(raw[name])}; expected a value of type {shown}")
    try:
        return kind(**raw)
    except TypeError as exc:  # a field is missing, or unknown
        raise ValueError(str(exc)) from exc


@functools.cache
def _types_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _has_type(value: Any, hint: Any) -> bool:
    if isinstance(value, bool):  # which is an `int` for Python
        return bool in {hint, *get_args(hint)} or hint is Any
    alternatives = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    kinds = {get_origin(one) or one for one in alternatives}
    return Any in kinds or isinstance(value, tuple(kinds | ({int} if float in kinds else set())))
