"""Django's cache API to the letter of its documentation, in one process."""

import datetime as dt
import math
from typing import Any

import pytest
from django.core.cache.backends.base import CacheKeyWarning

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import OptionsRefused
from cacheapp.processes.waiting import until
from tests.contract.conftest import Build

VALUES = {
    "none": None,
    "true": True,
    "zero": 0,
    "negative": -7,
    "63 bits": 2**63 - 1,
    "lowest 64 bits": -(2**63),
    "beyond 64 bits": 2**63,
    "200 bits": -(3**126),
    "float": 0.1,
    "infinity": math.inf,
    "empty str": "",
    "digits in a str": "12345",
    "unicode": "naïve ☃ \U0001f40d",
    "lone surrogate": "\ud800",
    "nul": "a\0b",
    "empty bytes": b"",
    "digits in bytes": b"12345",
    "bytes": bytes(range(256)),
    "100 KiB": bytes(range(256)) * 400,
    "3 MiB": "x" * (3 * 2**20),
    "tuple": (1, (2, 3)),
    "nested": {"a": [1, 2, {"b": {1, 2}}], 3: None},
    "time": dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC),
    "class": dt.timedelta,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_is_returned_unchanged(cache: SharedCache, value: Any) -> None:
    cache.set("key", value)
    found = cache.get("key", "default")
    assert found == value
    assert type(found) is type(value)


def test_nan_is_returned_as_nan(cache: SharedCache) -> None:
    cache.set("key", math.nan)
    assert math.isnan(cache.get("key"))


def test_a_missing_key_gives_the_default(cache: SharedCache) -> None:
    assert cache.get("missing") is None
    assert cache.get("missing", "default") == "default"


def test_a_cached_none_is_a_hit(cache: SharedCache) -> None:
    cache.set("key", None)
    assert cache.get("key", "default") is None
    assert cache.has_key("key")
    assert cache.add("key", 1) is False
    assert cache.get_or_set("key", "default") is None


def test_what_the_caller_does_to_its_object_later_is_not_stored(cache: SharedCache) -> None:
    value = {"list": [1]}
    cache.set("key", value)
    value["list"].append(2)
    assert cache.get("key") == {"list": [1]}
    cache.get("key")["list"].append(3)
    assert cache.get("key") == {"list": [1]}


def test_set_replaces_value_and_deadline(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=1000)
    cache.set("key", 2, timeout=None)
    assert cache.get("key") == 2
    assert cache.ttl("key") is None


def test_a_value_that_cannot_be_stored_is_refused_and_changes_nothing(cache: SharedCache) -> None:
    cache.set("key", "old")
    with pytest.raises(TypeError, match="pickle cannot store a value of type function"):
        cache.set("key", lambda: None)
    with pytest.raises(TypeError, match="pickle cannot store"):
        cache.set_many({"other": 1, "key": lambda: None})
    assert cache.get("key") == "old"
    assert cache.get("other") is None


# -- timeouts --------------------------------------------------------------------------------


def test_a_key_is_missing_after_its_timeout(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=100)
    assert cache.get("key") == 1
    cache.set("key", 1, timeout=1)
    until(lambda: cache.get("key") is None, "the key to expire")
    assert not cache.has_key("key")
    assert cache.touch("key") is False
    assert cache.delete("key") is False
    assert cache.ttl("key") == 0
    assert cache.add("key", 2) is True


def test_a_timeout_may_be_a_fraction(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=60.25)
    left = cache.pttl("key")
    assert left is not None
    assert 0 < left <= 60_250
    cache.set("key", 1, timeout=0.25)
    until(lambda: cache.get("key") is None, "the key to expire")


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_a_timeout_of_zero_or_less_stores_nothing(cache: SharedCache, timeout: float) -> None:
    cache.set("key", "old")
    cache.set("key", "new", timeout=timeout)
    assert cache.get("key") is None
    assert cache.add("key", 1, timeout=timeout) is True
    assert cache.get("key") is None
    cache.set_many({"a": 1, "b": 2}, timeout=timeout)
    assert cache.get_many(["a", "b"]) == {}
    cache.set("key", "old")
    assert cache.add("key", "new", timeout=timeout) is False
    assert cache.get("key") == "old"
    assert cache.touch("key", timeout=timeout) is True
    assert cache.get("key") is None


def test_the_alias_gives_the_default_timeout(build: Build) -> None:
    build("short", TIMEOUT=12.5).set("key", 1)
    left = build("short", TIMEOUT=12.5).pttl("key")
    assert left is not None
    assert 2_000 < left <= 12_500
    build("forever", TIMEOUT=None).set("key", 1)
    assert build("forever", TIMEOUT=None).ttl("key") is None
    build("never", TIMEOUT=0).set("key", 1)
    assert build("never", TIMEOUT=0).get("key") is None


@pytest.mark.parametrize(
    "timeout", ["60", True, math.nan, object()], ids=["str", "bool", "nan", "object"]
)
def test_a_timeout_that_is_no_number_is_refused(cache: SharedCache, timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected None or a number of seconds"):
        cache.set("key", 1, timeout=timeout)
    assert cache.get("key") is None


def test_a_very_long_timeout_is_kept(cache: SharedCache) -> None:
    century = 100 * 366 * 86_400
    cache.set("key", 1, timeout=century)
    left = cache.ttl("key")
    assert left is not None
    assert century - 10 < left <= century


def test_touch_replaces_the_deadline(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=50)
    assert cache.touch("key", 1000) is True
    assert (cache.ttl("key") or 0) > 900
    assert cache.touch("key", None) is True
    assert cache.ttl("key") is None
    assert cache.touch("missing", 1000) is False


# -- add, delete, counters --------------------------------------------------------------------


def test_add_stores_only_if_the_key_is_missing(cache: SharedCache) -> None:
    assert cache.add("key", 1) is True
    assert cache.add("key", 2) is False
    assert cache.get("key") == 1


def test_delete_returns_whether_the_key_existed(cache: SharedCache) -> None:
    cache.set("key", 1)
    assert cache.delete("key") is True
    assert cache.delete("key") is False
    assert "key" not in cache


@pytest.mark.parametrize(
    ("start", "delta", "total"),
    [
        (1, 1, 2),
        (0, -5, -5),
        (2**53, 1, 2**53 + 1),
        (2**63 - 1, 1, 2**63),
        (-(2**63), -1, -(2**63) - 1),
        (2**63, 1, 2**63 + 1),
        (2**63, -1, 2**63 - 1),
        (2**200, 2**199, 2**200 + 2**199),
        (1, 2**70, 2**70 + 1),
        (1, 0, 1),
        (0.5, 1, 1.5),
        (1, 0.25, 1.25),
        (True, 1, 2),
    ],
    ids=str,
)
def test_incr_adds_and_keeps_the_deadline(
    cache: SharedCache, start: float, delta: Any, total: float
) -> None:
    cache.set("key", start, timeout=1000)
    assert cache.incr("key", delta) == total
    assert cache.get("key") == total
    assert 990 < (cache.ttl("key") or 0) <= 1000
    assert cache.decr("key", delta) == total - delta
    cache.set("key", start, timeout=None)
    cache.incr("key", delta)
    assert cache.ttl("key") is None


def test_incr_of_a_missing_key_raises_and_creates_nothing(cache: SharedCache) -> None:
    for delta in (1, 0.5, 2**70):
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.incr("missing", delta)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.decr("missing", delta)  # type: ignore[arg-type]
    assert "missing" not in cache


@pytest.mark.parametrize("value", ["5", b"5", [5], None], ids=repr)
def test_incr_of_a_value_that_is_not_a_number_raises(cache: SharedCache, value: Any) -> None:
    cache.set("key", value)
    with pytest.raises(TypeError, match="only numbers can be incremented"):
        cache.incr("key")
    assert cache.get("key", "gone") == value


# -- versions ---------------------------------------------------------------------------------


def test_versions_are_separate(cache: SharedCache) -> None:
    cache.set("key", 1)
    cache.set("key", 2, version=2)
    assert (cache.get("key"), cache.get("key", version=2)) == (1, 2)
    assert cache.delete("key", version=2) is True
    assert cache.get("key") == 1


@pytest.mark.parametrize("value", [7, "text", b"x" * 100_000], ids=["int", "str", "100 kB"])
def test_incr_version_moves_value_and_deadline(cache: SharedCache, value: Any) -> None:
    cache.set("key", value, timeout=1000)
    cache.set("key", "in the way", timeout=5, version=2)
    assert cache.incr_version("key") == 2
    assert cache.get("key") is None
    assert cache.get("key", version=2) == value
    assert 990 < (cache.ttl("key", version=2) or 0) <= 1000
    assert cache.decr_version("key", version=2) == 1
    assert cache.get("key") == value
    assert cache.incr_version("key", delta=0) == 1
    assert cache.get("key") == value
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("missing")


def test_a_timeout_of_any_size_is_kept(cache: SharedCache) -> None:
    for timeout in (10.0**10, 10**400, math.inf):
        cache.set("key", "value", timeout)
        assert cache.get("key") == "value"
        assert cache.touch("key", timeout)
    assert cache.ttl("key") is None


# -- many keys --------------------------------------------------------------------------------


def test_the_many_calls(cache: SharedCache) -> None:
    assert cache.set_many({"a": 1, "b": None, "c": "x"}, timeout=1000) == []
    assert cache.get_many(["a", "b", "c", "missing"]) == {"a": 1, "b": None, "c": "x"}
    assert cache.get_many(key for key in ("a", "a")) == {"a": 1}
    assert cache.set_many({1: "one"}) == []
    assert cache.get_many([1, "1"]) == {1: "one", "1": "one"}
    assert (cache.ttl("c") or 0) > 990
    cache.delete_many(key for key in ("a", "c", "missing"))
    assert cache.get_many(["a", "b", "c"]) == {"b": None}
    assert cache.set_many({}) == []
    assert cache.get_many([]) == {}
    cache.delete_many([])
    cache.set_many({"a": 1}, version=2)
    assert cache.get_many(["a"], version=2) == {"a": 1}
    assert cache.get_many(["a"]) == {}


def test_five_thousand_keys_at_once(cache: SharedCache) -> None:
    data = {f"key-{number}": number for number in range(5000)}
    assert cache.set_many(data) == []
    assert cache.get_many(data) == data
    cache.delete_many(data)
    assert cache.get_many(data) == {}


def test_get_or_set(cache: SharedCache) -> None:
    assert cache.get_or_set("key", lambda: 1, timeout=1000) == 1
    assert cache.get_or_set("key", 2) == 1
    assert 990 < (cache.ttl("key") or 0) <= 1000
    assert cache.get_or_set("none", None) is None


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["with space", "x" * 251, "new\nline"], ids=["space", "long", "nl"])
def test_a_key_that_memcached_would_refuse_warns_and_works(cache: SharedCache, key: str) -> None:
    with pytest.warns(CacheKeyWarning, match="will cause errors if used with memcached"):
        cache.set(key, 1)
    with pytest.warns(CacheKeyWarning):
        assert cache.get(key) == 1
    with pytest.warns(CacheKeyWarning):
        assert cache.incr(key) == 2


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
@pytest.mark.parametrize(
    "key",
    ["ключ-☃", "x" * 10_000, "a:b:c", "%s*?[a]", "", 17],
    ids=["unicode", "long", "colons", "glob", "empty", "int"],
)
def test_any_key_works(cache: SharedCache, key: Any) -> None:
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.incr_version(key) == 2
    assert cache.get(key, version=2) == "value"
    assert cache.delete(key, version=2) is True


def test_clear_removes_all_versions_of_this_alias_alone(build: Build, cache: SharedCache) -> None:
    other = build("other", KEY_PREFIX=cache.key_prefix + "-other")
    longer = build("longer", KEY_PREFIX=cache.key_prefix + "2")
    other.set("key", "kept")
    longer.set("key", "kept")
    cache.set_many({"a": 1, "b": 2})
    cache.set("a", 3, version=5)
    cache.clear()
    assert cache.get_many(["a", "b"]) == {}
    assert cache.get("a", version=5) is None
    assert other.get("key") == "kept"
    assert cache.add("a", 1) is True


def test_two_aliases_with_other_prefixes_do_not_see_each_other(
    build: Build, cache: SharedCache
) -> None:
    other = build("other", KEY_PREFIX="other")
    cache.set("key", 1)
    assert other.get("key") is None
    other.set("key", 2)
    assert cache.get("key") == 1
    other.clear()
    assert cache.get("key") == 1


# -- the extended API -------------------------------------------------------------------------


def test_deadlines_of_single_keys(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=100)
    assert 90 < (cache.ttl("key") or 0) <= 100
    assert 90_000 < (cache.pttl("key") or 0) <= 100_000
    assert cache.persist("key") is True
    assert cache.persist("key") is False
    assert cache.ttl("key") is None
    assert cache.expire("key", 500) is True
    assert 490 < (cache.ttl("key") or 0) <= 500
    assert cache.pexpire("key", 1_000_000) is True
    assert 990 < (cache.ttl("key") or 0) <= 1000
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=50)
    assert cache.expire_at("key", soon) is True
    assert 40 < (cache.ttl("key") or 0) <= 50
    assert cache.pexpire_at("key", (soon.timestamp() + 50) * 1000) is True
    assert 90 < (cache.ttl("key") or 0) <= 100
    assert cache.expire_at("key", 1) is True
    assert cache.get("key") is None
    for answer in (cache.expire("no", 5), cache.persist("no"), cache.expire_at("no", soon)):
        assert answer is False
    assert (cache.ttl("no"), cache.pttl("no")) == (0, 0)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", {"a1", "a2", "b1", "a*", "A1"}),
        ("a*", {"a1", "a2", "a*"}),
        ("a?", {"a1", "a2", "a*"}),
        ("a[12]", {"a1", "a2"}),
        ("a[^1]", {"a2", "a*"}),
        ("[a-b]1", {"a1", "b1"}),
        (r"a\*", {"a*"}),
        ("none", set()),
        ("a1", {"a1"}),
    ],
)
def test_keys_are_listed_and_removed_by_pattern(
    cache: SharedCache, build: Build, pattern: str, expected: set[str]
) -> None:
    every = ["a1", "a2", "b1", "a*", "A1"]
    other = build("other", KEY_PREFIX="*")
    other.set_many(dict.fromkeys(every, 0))
    cache.set_many(dict.fromkeys(every, 0))
    cache.set("a1", 0, version=2)
    assert set(cache.keys(pattern)) == expected
    assert sorted(cache.iter_keys(pattern, itersize=2)) == sorted(expected)
    assert cache.keys("*", version=2) == ["a1"]
    assert cache.delete_pattern(pattern) == len(expected)
    assert set(cache.keys("*")) == set(every) - expected
    assert cache.keys("*", version=2) == ["a1"]
    assert set(other.keys("*")) == set(every)


@pytest.mark.parametrize("itersize", [0, -1, 1])
def test_listing_ends_for_every_size_of_its_steps(cache: SharedCache, itersize: int) -> None:
    cache.set_many({"a": 1, "b": 1, "c": 1})
    assert sorted(cache.iter_keys("*", itersize=itersize)) == ["a", "b", "c"]
    assert cache.delete_pattern("*", itersize=itersize) == 3


def test_an_expired_key_is_not_listed(cache: SharedCache) -> None:
    cache.set("key", 1, timeout=0.05)
    until(lambda: cache.get("key") is None, "the key to expire")
    assert cache.keys("*") == []
    assert cache.delete_pattern("*") == 0


# -- the rest ---------------------------------------------------------------------------------


def test_close_keeps_the_store(cache: SharedCache) -> None:
    cache.set("key", 1)
    cache.close()
    cache.close()
    assert cache.get("key") == 1


def test_stats_count_what_was_done(cache: SharedCache) -> None:
    before = cache.stats()
    cache.set("a", 1)
    cache.set_many({"b": 1, "c": 1})
    cache.get("a")
    cache.get("missing")
    cache.get_many(["a", "b", "missing"])
    cache.delete("a")
    cache.delete("a")
    grown = {name: value - before[name] for name, value in cache.stats().items()}
    assert grown["sets"] == 3
    assert grown["hits"] == 3
    assert grown["misses"] == 2
    assert grown["deletes"] == 1


def test_an_unknown_or_ill_typed_option_is_refused_by_name(build: Build) -> None:
    wrong = build("wrong", OPTIONS={"serialiser": "json", "signed": "yes"}, TIMEOUT="soon")
    for call in (lambda: wrong.get("key"), lambda: wrong.set("key", 1), wrong.clear, wrong.stats):
        with pytest.raises(OptionsRefused, match=r"CACHES\['wrong'\]"):
            call()
    with pytest.raises(OptionsRefused, match=r"OPTIONS\['serialiser'\] is not an option") as caught:
        wrong.get("key")
    assert "OPTIONS['signed'] is 'yes'; expected True or False" in str(caught.value)
    assert "TIMEOUT is 'soon'; expected None or a number of seconds" in str(caught.value)


def test_a_method_of_django_that_we_forgot_would_be_seen() -> None:
    from django.core.cache.backends.base import BaseCache  # noqa: PLC0415

    inherited = {"get_backend_timeout", "make_key", "make_and_validate_key", "get_or_set"}
    inherited |= {"decr_version", "aclose", "__contains__"}
    for name in vars(BaseCache):
        if callable(getattr(BaseCache, name)) and name not in inherited and name[:2] != "__":
            assert getattr(SharedCache, name) is not getattr(BaseCache, name), name
