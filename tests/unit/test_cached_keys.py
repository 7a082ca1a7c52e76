"""The keys of cached functions: the same in every process, different for different calls."""

import copy
import datetime as dt
import decimal
import enum
import functools
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache.backends.base import memcache_key_warnings
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheapp.cached import cached
from cacheapp.canonical import NotCanonical, encode, key_part, snapshot


class Colour(enum.Enum):
    """Values that are members."""

    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    """Members that are equal to numbers."""

    ONE = 1


class Right(enum.Flag):
    """Members that are combined."""

    READ = 1
    WRITE = 2


@cached(60)
def total(book: Any, count: Any = 1, *rest: Any, currency: Any = "EUR", **more: Any) -> Any:
    return (book, count, rest, currency, more)


@cached(60)
async def atotal(book: Any) -> Any:
    return book


class Shop:
    """Something with methods, which has no encoding itself."""

    @cached(60)
    def price(self, book: Any) -> Any:
        return book

    @cached(60, key=lambda shop, book: f"{shop.town}-{book}")
    def stock(self, book: Any) -> Any:
        return book

    @staticmethod
    @cached(60)
    def tax(book: Any) -> Any:
        return book

    def __init__(self, town: str) -> None:
        self.town = town


def saved(instance: Any) -> Any:
    """Return the instance as if it came from the database."""
    instance._state.adding = False  # noqa: SLF001
    return instance


# -- the encoding ------------------------------------------------------------------------------

# The machine may be busy, so the time of an example means nothing.
many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
some = settings(many, max_examples=40)

ZONES = [None, dt.UTC, dt.timezone(dt.timedelta(hours=1)), zoneinfo.ZoneInfo("UTC")]
NEAR_TAGS = st.text("s1:;in=,a\ud800", max_size=3)  # characters that the encoding itself uses
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, math.nan]),
    NEAR_TAGS,
    st.text(),
    NEAR_TAGS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.decimals(allow_nan=False),
    st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal(1), Decimal("-0"), Decimal("NaN")]),
    st.dates(),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([*Colour, *Level, Right.READ, Right.READ | Right.WRITE, Right(0)]),
)
HASHABLE = st.recursive(
    SCALARS, lambda inner: st.tuples(inner) | st.tuples(inner, inner), max_leaves=4
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
        st.dictionaries(HASHABLE, inner, max_size=3),
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    """Return True if no function can distinguish the values (but by identity, or a set's order)."""
    return type(one) is type(other) and same_of_a_type(one, other)


def same_of_a_type(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return same_unordered(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return same_unordered(list(one), list(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float | Decimal):
        return str(one) == str(other)
    if isinstance(one, dt.datetime | dt.time):
        return (str(one), one.fold, repr(one.tzinfo)) == (
            str(other),
            other.fold,
            repr(other.tzinfo),
        )
    return bool(one == other)


def same_unordered(these: list[Any], others: list[Any]) -> bool:
    left = list(others)
    for item in these:
        match = next((index for index, other in enumerate(left) if same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


@many
@given(VALUES, VALUES)
def test_values_have_one_encoding_exactly_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == same(one, other)


def test_no_row_of_tricky_strings_looks_like_another_row() -> None:
    words = ["".join(word) for size in range(3) for word in itertools.product("s1:", repeat=size)]
    rows = [row for size in range(4) for row in itertools.product(words, repeat=size)]
    assert len({b"".join(map(encode, row)) for row in rows}) == len(rows) == 1 + 13 + 13**2 + 13**3


@some
@given(VALUES)
def test_a_copy_has_the_encoding_of_its_original(value: Any) -> None:
    assert encode(copy.deepcopy(value)) == encode(value)
    assert encode(pickle.loads(pickle.dumps(value))) == encode(value)
    assert encode(snapshot(value)) == encode(value)


@some
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_arguments_side_by_side_do_not_run_into_each_other(
    these: list[Any], others: list[Any]
) -> None:
    assert (total.key_for(0, 1, *these) == total.key_for(0, 1, *others)) == same(these, others)


@some
@given(st.dictionaries(HASHABLE, VALUES, max_size=4))
def test_the_order_of_a_dict_does_not_matter(value: dict[Any, Any]) -> None:
    assert encode(dict(reversed(value.items()))) == encode(value)


@some
@given(VALUES, st.text(max_size=300))
def test_a_key_is_valid_for_memcached_and_plain_in_globs(value: Any, text: str) -> None:
    for key in (total.key_for(value), total.key_for(text), total.key_for(text, **{text: value})):
        assert list(memcache_key_warnings(f"some-prefix:1:{key}")) == []
        assert len(key) < 160
        assert not set(key) & set("*?[]\\^")


def test_a_short_plain_call_can_be_read_in_its_key() -> None:
    assert total.key_for(7, 2) == (
        "cached:tests.unit.test_cached_keys.total:"
        "book=i7;,count=i2;,rest=T0:,currency=s3:EUR,more=m0:"
    )
    assert key_part(b"a" * 80) == "a" * 80
    assert key_part(b"a" * 81).startswith("#")
    assert key_part(b"#abc") != "#abc"


def test_integers_of_thousands_of_digits_have_an_encoding() -> None:
    assert encode(10**5000) != encode(10**5000 + 1)
    assert encode(-(10**5000)) != encode(10**5000)


def test_the_context_of_decimals_does_not_matter() -> None:
    value = Decimal("1E+30")
    before = encode(value)
    with decimal.localcontext() as context:
        context.capitals = 0
        assert str(value) == "1e+30"
        assert encode(value) == before


def test_snapshots_do_not_change_with_their_originals() -> None:
    original: dict[str, Any] = {"a": [1, {2}], "b": ([3],)}
    taken = snapshot(original)
    original["a"].append(4)
    original["b"][0].append(5)
    assert taken == {"a": [1, {2}], "b": ([3],)}


# -- arguments ---------------------------------------------------------------------------------


def test_arguments_may_be_given_by_position_by_name_or_by_default() -> None:
    key = total.key_for(7, 1)
    assert total.key_for(7) == key
    assert total.key_for(book=7, count=1) == key
    assert total.key_for(count=1, currency="EUR", book=7) == key
    assert total.key_for(7, a=1, b=2) == total.key_for(7, b=2, a=1)
    assert total.key_for(7, 1, 2) != key
    assert total.key_for(7, more={}) != key


def test_arguments_that_the_function_does_not_take_are_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'book'"):
        total.key_for(count=1)


def test_values_that_are_equal_but_distinguishable_have_different_keys() -> None:
    values = [1, 1.0, True, "1", b"1", Decimal(1), Decimal("1.0"), Level.ONE, (1,), [1], {1}]
    assert len({total.key_for(value) for value in values}) == len(values)


def test_one_instant_in_two_time_zones_has_two_keys() -> None:
    instant = dt.datetime(2026, 10, 25, 1, tzinfo=dt.UTC)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    assert encode(instant) != encode(instant.astimezone(berlin))
    assert encode(instant.astimezone(berlin)) != encode(
        instant.astimezone(berlin).replace(fold=1 - instant.astimezone(berlin).fold)
    )


def test_a_model_instance_counts_by_label_and_primary_key() -> None:
    key = total.key_for(saved(User(pk=3, username="ann")))
    assert total.key_for(saved(User(pk=3, username="bob"))) == key
    assert total.key_for(SimpleLazyObject(lambda: saved(User(pk=3)))) == key  # request.user
    assert total.key_for(saved(User(pk=4))) != key
    assert total.key_for(saved(Group(pk=3))) != key
    assert total.key_for(3) != key


LOCAL_ZONE = type("Zone", (dt.tzinfo,), {})()


def _endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _local_enum() -> Any:
    class Local(enum.Enum):
        A = 1

    return Local


def _generator() -> Iterator[int]:
    yield 1


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "object": (object, "a value of type object"),
    "class": (lambda: int, "a value of type type"),
    "function": (lambda: _endless, "a value of type function"),
    "generator": (_generator, "a value of type generator"),
    "subclass of str": (
        lambda: SafeString("x"),
        "a value of type django.utils.safestring.SafeString",
    ),
    "bytearray": (lambda: bytearray(b"x"), "a value of type bytearray"),
    "range": (lambda: range(3), "a value of type range"),
    "unsaved instance": (lambda: User(pk=3), "an unsaved auth.User"),
    "without primary key": (lambda: saved(User()), "an unsaved auth.User"),
    "time zone": (lambda: dt.datetime(2026, 1, 1, tzinfo=LOCAL_ZONE), "a time zone of type"),
    "enum of a function": (lambda: _local_enum().A, "a member of the enum"),
    "endless": (_endless, "a value that is nested too deeply"),
}


@pytest.mark.parametrize(("make", "found"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["bare", "nested"]
)
def test_what_has_no_stable_encoding_is_refused_by_name(
    make: Callable[[], Any], found: str, wrap: Callable[[Any], Any]
) -> None:
    with pytest.raises(
        TypeError, match=r"total\(\) is cached, and its argument 'count' holds"
    ) as info:
        total.key_for(7, wrap(make()))
    assert found in str(info.value)
    assert "pass key= to @cached" in str(info.value)


def test_other_values_raise_an_error_of_their_own() -> None:
    with pytest.raises(NotCanonical, match=r"^a value of type set_iterator$"):
        encode(iter({1}))


# -- functions ---------------------------------------------------------------------------------


def test_keys_are_the_same_in_processes_with_different_hash_seeds() -> None:
    here = json.loads(json.dumps(_sample_keys()))
    program = (
        "import json, django; django.setup(); import tests.unit.test_cached_keys as t;"
        "print(json.dumps(t._sample_keys()))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [json.loads(output) for output in outputs] == [here, here]


def _sample_keys() -> list[str]:
    words = {"one", "two", "three", "four", "five", "six", "seven"}
    values = [
        *[words, frozenset(words), dict.fromkeys(words, 1), {word: {word} for word in words}],
        *[None, True, 7, 2**100, 0.1, math.nan, "naïve", b"\0", Decimal("1.10"), uuid.UUID(int=5)],
        *[Colour.RED, Level.ONE, Right.READ | Right.WRITE, saved(User(pk=3))],
        *[dt.datetime(2026, 1, 1, tzinfo=zone) for zone in ZONES],
        *[dt.date(2026, 1, 1), dt.time(1, 2), dt.timedelta(1, 2, 3), ((1, (2,)), [3])],
    ]
    return [total.key_for(value) for value in values]


def test_a_method_has_its_instance_in_the_key() -> None:
    class_key = total.key_for(1)
    with pytest.raises(TypeError, match=r"Shop\.price\(\).* argument 'self' holds a .*Shop"):
        Shop("Ulm").price.key_for(7)
    ulm = Shop("Ulm").stock.key_for(7)
    assert ulm == Shop.stock.key_for(Shop("Ulm"), 7)
    assert ulm != Shop("Bonn").stock.key_for(7)
    assert ulm.endswith("test_cached_keys.Shop.stock:key=Ulm-7")
    assert Shop.tax.key_for(7) == Shop("Ulm").tax.key_for(book=7)
    assert class_key != Shop.tax.key_for(1)


def test_functions_whose_keys_are_equal_do_not_share() -> None:
    decorate = cached(60, key=lambda: "same")
    one, two = decorate(_generatorless), decorate(_endless)
    assert one.key_for() != two.key_for()


def _generatorless() -> int:
    return 1


def test_key_must_return_a_str() -> None:
    made = cached(60, key=lambda: 7)(_generatorless)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"key= of _generatorless\(\) returned 7; expected a str"):
        made.key_for()


def _in_main() -> None: ...


def test_a_function_whose_name_is_not_unique_needs_key() -> None:
    def local() -> int:
        return 1

    in_main = functools.wraps(_in_main)(lambda: None)
    in_main.__module__ = "__main__"
    for function in (local, lambda: 1, functools.partial(_generatorless), in_main):
        with pytest.raises(TypeError, match=r"cannot name this function in keys.* pass key="):
            cached(60)(function)
    assert cached(60, key=lambda: "a")(local).key_for().endswith(":key=a")
    assert cached(60, key=lambda: "a")(lambda: 1).key_for().endswith(":key=a")
    key = cached(60, key=lambda: "a")(in_main).key_for()
    in_main.__module__ = "__mp_main__"  # what multiprocessing's children call it
    assert cached(60, key=lambda: "a")(in_main).key_for() == key
    with pytest.raises(TypeError, match="without its own name"):
        cached(60, key=lambda: "a")(functools.partial(_generatorless))


def test_the_key_does_not_depend_on_the_source() -> None:
    keys = set()
    for body in ("1", "2"):
        namespace: dict[str, Any] = {"__name__": "shop.prices"}
        exec(f"def price(book, count=1): return {body}", namespace)  # noqa: S102
        keys.add(cached(60)(namespace["price"]).key_for(7))
    assert keys == {"cached:shop.prices.price:book=i7;,count=i1;"}


def test_the_key_depends_on_which_parameter_a_value_is_for() -> None:
    keys = set()
    for parameters in ("book, count", "count, book"):
        namespace: dict[str, Any] = {"__name__": "shop.prices"}
        exec(f"def price({parameters}): pass", namespace)  # noqa: S102
        keys.add(cached(60)(namespace["price"]).key_for(7, 7))
    assert len(keys) == 2


def test_a_function_of_any_name_has_a_valid_memcached_key() -> None:
    namespace: dict[str, Any] = {"__name__": "m" * 300}
    exec("def größe(): pass", namespace)  # noqa: S102
    key = cached(60)(namespace["größe"]).key_for()
    assert list(memcache_key_warnings(key)) == []
    assert len(key) < 100


def test_what_cannot_be_cached_is_refused_where_it_is_decorated() -> None:
    with pytest.raises(TypeError, match="generator function"):
        cached(60)(_generator)
    with pytest.raises(TypeError, match="above @staticmethod; expected it directly above the def"):
        cached(60)(staticmethod(_generatorless))
    with pytest.raises(ValueError, match=r"timeout is <function .*; expected seconds above 0"):
        cached(_generatorless)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": "60"}, "timeout is '60'"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": 60, "stale": -1}, "stale is -1"),
        ({"timeout": 60, "jitter": 2}, "jitter is 2"),
        ({"timeout": 60, "key": "price"}, "key is 'price'"),
    ],
    ids=["zero", "str", "bool", "nan", "stale", "jitter", "key"],
)
def test_wrong_arguments_of_the_decorator_are_refused_by_name(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{message}; expected"):
        cached(**wrong)


def test_a_cached_function_looks_like_the_function() -> None:
    assert total.__name__ == "total"
    assert total.__wrapped__(7) == (7, 1, (), "EUR", {})
    assert pickle.loads(pickle.dumps(total)) is total
    assert copy.deepcopy(total) is total
    ann = saved(User(pk=3))
    assert pickle.loads(pickle.dumps(Shop("Ulm").stock)).key_for(7) == Shop("Ulm").stock.key_for(7)
    assert repr(ann.pk) == "3"
    assert repr(total).startswith("<cached <function total at ")
    assert not hasattr(atotal, "refresh")
    assert not hasattr(total, "arefresh")
