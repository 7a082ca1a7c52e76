"""Readers of typed values: what each accepts, and the one form of all their messages."""

import dataclasses
import math
from typing import Any

import pytest

from cacheapp import typed_values as tv
from cacheapp.typed_values import Mistake, Reader, byte_rate, read_dataclass, read_values


def _shown(value: Any) -> str:
    """Return an id that every process gives: the address of a function is not one."""
    return str(getattr(value, "__qualname__", repr(value)[:20]))


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (tv.boolean, 1, "True or False"),
        (tv.whole_number(), True, "a whole number"),
        (tv.whole_number(), 1.0, "a whole number"),
        (tv.whole_number(1), 0, "a whole number of at least 1"),
        (tv.whole_number(1, 5), 6, "a whole number from 1 to 5"),
        (tv.digits(1, 5), "0", "a whole number from 1 to 5"),
        (tv.digits(0, 5), "-1", "a whole number from 0 to 5"),
        (tv.digits(0, 5), "\u0661", "a whole number from 0 to 5"),
        (tv.digits(0, 5), "9" * 5000, "a whole number from 0 to 5"),
        (tv.number, True, "a number"),
        (tv.number, "1", "a number"),
        (tv.seconds, 0, "a number of seconds above 0"),
        (tv.seconds, math.inf, "a number of seconds above 0"),
        (tv.seconds, math.nan, "a number of seconds above 0"),
        (tv.text, b"x", "a str"),
        (tv.one_of("a", "b"), "c", "one of 'a', 'b'"),
        (tv.one_of("a", "b"), ["a"], "one of 'a', 'b'"),
        (tv.none_or(tv.boolean), 0, "None or True or False"),
    ],
    ids=_shown,
)
def test_a_reader_says_what_it_expects(reader: Reader, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        reader(value)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("reader", "value", "found"),
    [
        (tv.boolean, False, False),
        (tv.whole_number(1, 5), 5, 5),
        (tv.digits(0, 10), "10", 10),
        (tv.number, 0.5, 0.5),
        (tv.seconds, 2, 2.0),
        (tv.one_of("a", "b"), "b", "b"),
        (tv.none_or(tv.seconds), None, None),
        (tv.anything, [1], [1]),
    ],
    ids=_shown,
)
def test_a_reader_returns_the_typed_value(reader: Reader, value: Any, found: Any) -> None:
    assert (reader(value), type(reader(value))) == (found, type(found))


def test_all_mistakes_are_collected_beside_what_could_be_read() -> None:
    readers = {"size": tv.whole_number(1), "on": tv.boolean, "name": tv.text}
    values, mistakes = read_values({"size": 0, "on": True, "title": "x"}, readers, "an option")
    assert values == {"on": True}
    assert mistakes == [
        Mistake("size", "is 0; expected a whole number of at least 1"),
        Mistake("title", "is not an option; expected one of name, on, size"),
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("size_limt", "did you mean size_limit?"),
        ("max_entries", "did you mean MAX_ENTRIES?"),
        ("no_delay", "expected one of MAX_ENTRIES, size_limit"),
        (5, "expected one of MAX_ENTRIES, size_limit"),
    ],
)
def test_a_name_that_is_nearly_a_known_one_is_a_question(name: Any, meant: str) -> None:
    readers = {"size_limit": tv.whole_number(1), "MAX_ENTRIES": tv.whole_number(1)}
    assert read_values({name: 1}, readers, "an option")[1] == [
        Mistake(str(name), f"is not an option; {meant}")
    ]


def test_a_secret_is_never_shown() -> None:
    _values, (mistake,) = read_values({"key": 5}, {"key": tv.text}, "a field", secret={"key"})
    assert mistake.error == "is of type int; expected a str"


def test_a_long_value_is_cut_off() -> None:
    _values, (mistake,) = read_values({"n": "x" * 5000}, {"n": tv.boolean}, "a field")
    assert mistake.error.startswith("is 'xxx")
    assert len(mistake.error) < 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1024, 1024),
        ("500k", 500 * 1024),
        ("500K", 500 * 1024),
        ("2M", 2 * 2**20),
        ("1.5M", 3 * 2**19),
        ("1G", 2**30),
        ("2m", 2 * 2**20),
        ("10MiB/s", 10 * 2**20),
        ("10 MiB/s", 10 * 2**20),
        ("10MB/s", 10_000_000),
        ("64kB", 64_000),
        ("4096B/s", 4096),
        ("5000", 5000),
    ],
)
def test_a_rate_is_read_as_curl_does_or_with_its_unit(value: object, expected: int) -> None:
    assert byte_rate(value) == expected


@pytest.mark.parametrize(
    "value", [0, 1023, -1, True, 1e6, "", "k", "10x", "10Mb", "10Mbit/s", "fast", "1e6", "9999999T"]
)
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="bytes per second, at least 1024"):
        byte_rate(value)


@dataclasses.dataclass
class _Record:
    at_s: float
    name: str | None
    names: tuple[str, ...] = ()
    is_new: bool = False


def test_a_dataclass_is_read_from_the_fields_of_a_json_object() -> None:
    assert read_dataclass(_Record, {"at_s": 1, "name": None}) == _Record(1, None)
    raw = {"at_s": 1.5, "name": "a", "names": ("x",), "is_new": True}
    assert read_dataclass(_Record, raw) == _Record(1.5, "a", ("x",), is_new=True)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ([], r"\[\]; expected the fields of a _Record"),
        ({"name": None}, "missing 1 required positional argument: 'at_s'"),
        ({"at_s": 1, "name": None, "more": 1}, "unexpected keyword argument 'more'"),
        ({"at_s": "1", "name": None}, "'at_s' is '1'; expected a value of type float"),
        ({"at_s": True, "name": None}, "'at_s' is True; expected a value of type float"),
        ({"at_s": 1, "name": 5}, "'name' is 5; expected a value of type str | None"),
        ({"at_s": 1, "name": None, "names": "x"}, "'names' is 'x'; expected a value of type tuple"),
        ({"at_s": 1, "name": None, "is_new": 1}, "'is_new' is 1; expected a value of type bool"),
    ],
)
def test_another_object_is_no_dataclass(raw: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error.replace("|", r"\|")):
        read_dataclass(_Record, raw)
