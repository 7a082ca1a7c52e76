"""Test that the fast path of LMDBCache behaves like its slow twins in `SharedCache`."""

import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import pytest
from django.core.cache import caches
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from cacheapp.backends import LMDBCache
from cacheapp.backends.core.counters import NAMES
from cacheapp.backends.core.shared import SharedCache
from tests.integration.backends.lmdb.parts import ours

Outcome: TypeAlias = tuple[object, ...]
Pair: TypeAlias = tuple[LMDBCache, LMDBCache]

_KEYS = st.sampled_from(
    [
        *(["k"] * 10),
        *("other", "", "a b", "tab\t", "del\x7f", "n\xa0b", "ü", "�", "lone\x1frefresh"),
        *(
            "x" * 246,
            "x" * 247,
            "x" * 300,
            "x" * 600,
            "é" * 123,
            "é" * 125,
            "é" * 200,
            7,
            1.5,
            None,
        ),
    ]
)
_VERSIONS = st.sampled_from([None, None, None, 1, 2, 0, True, 1.0, "1", "v 2", "é"])
_TIMEOUTS = st.sampled_from(
    [*({}, {}, {"timeout": None}, {"timeout": 1000}, {"timeout": 300}, {"timeout": 500.5})]
    + [{"timeout": odd} for odd in (0, -1, True, 10**12, 10**400, 1e12, math.nan, "1")]
)
_VALUES = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**70, True, False, None, math.inf, 2.5]),
    st.sampled_from([0, 1, 40, 4000, 5000, 70_000]).map(bytes),
    st.text(max_size=20),
    st.just({"id": 17, "roles": ["editor"]}),
    st.just(print).map(lambda _: lambda: None),  # no serializer accepts it
    st.just(bytes(1_100_000)),  # too large for the store
)
_MORE = st.sampled_from([{}, {}, {}, {"stale": 100}, {"stale": -1}, {"jitter": 2}])
_DELTAS = st.sampled_from([1, -1, 0, 2**62, -(2**63), 2**64, True, 1.5])

_CALLS = st.one_of(
    st.tuples(st.just("get"), _KEYS, st.fixed_dictionaries({"version": _VERSIONS})),
    st.tuples(
        st.just("set"),
        _KEYS,
        st.builds(
            lambda value, version, timeout, more: {
                "value": value,
                "version": version,
                **timeout,
                **more,
            },
            *(_VALUES, _VERSIONS, _TIMEOUTS, _MORE),
        ),
    ),
    st.tuples(
        st.just("incr"),
        _KEYS,
        st.fixed_dictionaries({"delta": _DELTAS, "version": _VERSIONS}),
    ),
)
_SLOW: dict[str, Callable[..., Any]] = {
    "get": SharedCache.get,
    "set": SharedCache.set,
    "incr": SharedCache.incr,
}


@pytest.fixture
def pair(settings: Settings, tmp_path: Path) -> Pair:
    """Two aliases of one directory: one for the fast path, one for its slow twins."""
    fast = ours(settings, tmp_path, "default", "a")
    return fast, ours(settings, tmp_path, "slow", "b")


def _outcome(call: Callable[[], Any]) -> Outcome:
    """Return what a call returned or raised, and the categories of its warnings."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            found = call()
            outcome: Outcome = ("returned", type(found), repr(found))
        except Exception as exc:  # noqa: BLE001 (it is compared)
            outcome = ("raised", type(exc), str(exc).replace("<locals>", ""))
    return (*outcome, [warning.category for warning in seen])


def _state(cache: LMDBCache, key: Any, version: Any) -> Outcome:
    """Return the value of a key, read in both ways, and its rounded TTL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = cache.ttl(key, version=version)
        found = [cache.get(key, version=version), SharedCache.get(cache, key, version=version)]
    return repr(found), left if not left else round(left, -2)


def _counted(cache: LMDBCache) -> dict[str, int]:
    return {name: number for name, number in cache.stats().items() if name in NAMES}


@of_hypothesis(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(_CALLS, min_size=1, max_size=12))
def test_the_fast_path_and_its_slow_twins_have_equal_effects(
    pair: Pair, calls: list[tuple[str, Any, dict[str, Any]]]
) -> None:
    fast, slow = pair
    for cache in pair:
        cache.clear()
    before = [_counted(cache) for cache in pair]
    for method, key, kwargs in calls:
        args = {**kwargs}
        assert _outcome(lambda: getattr(fast, method)(key, **args)) == _outcome(  # noqa: B023
            lambda: _SLOW[method](slow, key, **args)  # noqa: B023
        ), (method, key, kwargs)
        version = kwargs["version"]
        assert _state(fast, key, version) == _state(slow, key, version), (method, key, kwargs)
    counted = [
        {name: number - began[name] for name, number in _counted(cache).items()}
        for cache, began in zip(pair, before, strict=True)
    ]
    assert counted[0] == counted[1]


def test_each_way_overwrites_and_increments_entries_of_the_other(pair: Pair) -> None:
    cache, _ = pair
    for value in ("short", "a longer value", "x", 7, 2**70, bytes(9000), b"", None):
        SharedCache.set(cache, "key", value, timeout=100)
        assert cache.get("key") == value
        cache.set("key", value, timeout=1000)
        assert SharedCache.get(cache, "key") == value
        assert cache.ttl("key") in range(900, 1001)
    cache.set("n", 2**63 - 1)
    assert [cache.incr("n"), cache.incr("n", -1), cache.incr("n", -(2**64))] == [
        *(2**63, 2**63 - 1, -(2**63) - 1)
    ]
    cache.set("n", 1)
    assert cast("Any", cache)._store.get(cache.make_key("n")) == 1  # noqa: SLF001 (an integer)
    assert [cache.incr("n"), SharedCache.incr(cache, "n"), cache.incr("n", -5)] == [2, 3, -2]


def test_a_write_on_the_fast_path_voids_a_lease(pair: Pair) -> None:
    cache, _ = pair

    def compute() -> str:
        cache.set("key", "newer")
        return "older"

    assert cache.get_or_set("key", compute) == "older"
    assert cache.get("key") == "newer"
    assert cache.stats()["voided_fills"] == 1


def test_version_prefix_and_key_function_may_be_changed(pair: Pair) -> None:
    cache, _ = pair
    cache.set("key", "one")
    cache.version = 2
    assert cache.get("key") is None
    cache.set("key", "two")
    assert cache.get("key", version=1) == "one"
    assert SharedCache.get(cache, "key") == "two"
    cache.key_prefix = "new"
    assert cache.get("key") is None
    cache.key_func = lambda key, prefix, version: f"{prefix}-{version}-{key}"
    cache.set("key", "three")
    assert SharedCache.get(cache, "key") == "three"


@pytest.mark.parametrize("first", [b"\0", b"\xa0", b"\xff"])
def test_the_fast_path_loads_no_unsigned_pickle_if_values_are_signed(
    settings: Settings, tmp_path: Path, first: bytes
) -> None:
    cache = ours(settings, tmp_path, signed=True)
    store = cast("Any", cache)._store  # noqa: SLF001 (as another program could write it)
    store.set(cache.make_key("key"), first + pickle.dumps(_Loaded()), 100)
    assert cache.get("key", "absent") == "absent"
    assert _Loaded.loaded == []
    assert cache.stats()["values_rejected"] == 1


class _Loaded:
    """Records that it was unpickled."""

    loaded: ClassVar[list[str]] = []

    def __reduce__(self) -> Any:
        return self.loaded.append, ("unpickled",)


class _Own(LMDBCache):
    """A subclass, as a site may define it, that makes its own keys."""

    def make_key(self, key: Any, version: int | None = None) -> str:
        return super().make_key(f"own-{key}", version)


def test_the_make_key_of_a_subclass_is_used(settings: Settings, tmp_path: Path) -> None:
    ours(settings, tmp_path)
    cache = _Own(str(tmp_path), {"OPTIONS": {"size_limit": 4 * 2**20}})
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert caches["default"].get("own-key") == "value"
