"""`get_or_set` in one process: stale values, their refresh, and jitter."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from cacheapp.backends.core.lease_format import REFRESH_SUFFIX
from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until
from tests.contract.calls import DEADLINE_S, Calling, Factory
from tests.contract.conftest import Build


def _past_its_deadline(cache: SharedCache, value: Any = "old") -> None:
    assert cache.get_or_set("key", lambda: value, 0.05, stale=1000) == value
    until(lambda: not cache.has_key("key"), "the soft deadline to pass")


@pytest.mark.parametrize("value", ["old", 7], ids=["str", "int"])
def test_a_stale_value_is_served_while_one_caller_refreshes_it(
    cache: SharedCache, value: Any
) -> None:
    _past_its_deadline(cache, value)
    factory = Factory("new")
    before = cache.stats()
    for _ in range(5):
        assert cache.get_or_set("key", factory, 100, stale=1000) == value
    assert factory.running.wait(DEADLINE_S)
    factory.go_on.set()
    until(lambda: cache.get("key") == "new", "the refreshed value")
    assert factory.runs == 1
    assert cache.stats()["stale_hits"] - before["stale_hits"] == 5


def test_past_its_soft_deadline_a_key_is_expired_for_all_others(cache: SharedCache) -> None:
    _past_its_deadline(cache, 7)
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    assert cache.ttl("key") == 0
    assert cache.touch("key", 100) is False
    assert cache.persist("key") is False
    assert cache.keys("*") == []
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("key")
    assert cache.delete("key") is False
    _past_its_deadline(cache, 7)
    assert cache.add("key", "added") is True
    assert cache.get("key") == "added"


def test_before_its_soft_deadline_a_key_is_like_any_other(cache: SharedCache) -> None:
    cache.get_or_set("key", lambda: 7, 500, stale=1000)
    assert cache.get("key") == 7
    assert cache.has_key("key")
    assert 490 < (cache.ttl("key") or 0) <= 500
    assert cache.add("key", 8) is False
    assert cache.keys("*") == ["key"]
    assert cache.incr("key", 3) == 10
    assert 490 < (cache.ttl("key") or 0) <= 500
    assert cache.incr_version("key") == 2
    assert cache.get("key", version=2) == 10
    assert 490 < (cache.ttl("key", version=2) or 0) <= 500
    assert cache.touch("key", 100, version=2) is True
    assert 90 < (cache.ttl("key", version=2) or 0) <= 100
    assert cache.persist("key", version=2) is True
    assert cache.ttl("key", version=2) is None
    assert cache.get("key", version=2) == 10
    assert cache.delete("key", version=2) is True


def test_without_stale_a_caller_computes_again(cache: SharedCache) -> None:
    _past_its_deadline(cache)
    assert cache.get_or_set("key", lambda: "new", 100) == "new"
    assert cache.get("key") == "new"


def test_past_the_stale_time_nothing_is_left(cache: SharedCache) -> None:
    cache.get_or_set("key", lambda: "old", 0.02, stale=0.02)
    until(lambda: cache.add("key", "gone"), "the key to expire")
    assert cache.get_or_set("key", lambda: "new") == "gone"


def test_a_refresh_that_fails_leaves_the_old_value(build: Build) -> None:
    cache = build("inline", OPTIONS={"refresh": "inline"})
    _past_its_deadline(cache)
    failing = Factory(LookupError("broken"))
    failing.go_on.set()
    before = cache.stats()["factory_errors"]
    assert cache.get_or_set("key", failing, 100, stale=1000) == "old"
    assert cache.stats()["factory_errors"] - before == 1
    assert cache.get_or_set("key", lambda: "new", 100, stale=1000) == "new"
    assert cache.get("key") == "new"


class Overtaken:
    """A value whose next reader, between its two steps, is overtaken by what `meanwhile` does."""

    meanwhile: ClassVar[list[Callable[[], Any]]] = []

    def __init__(self) -> None:
        self.text = "x" * 100_000  # on DiskCache it has a file

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.meanwhile:
            overtake = Calling(self.meanwhile.pop())
            assert overtake.outcome() == "new"


def _refresh_lease(cache: SharedCache) -> object:
    return cache._store.get(cache.make_and_validate_key("key") + REFRESH_SUFFIX)  # noqa: SLF001


def _overtaken(build: Build, mode: str) -> SharedCache:
    """Return a cache with a stale value whose next reader is overtaken by another one's refresh."""
    cache = build("overtaken", OPTIONS={"refresh": mode, "serializer": "pickle"})
    _past_its_deadline(cache, Overtaken())

    def refresh() -> Any:
        cache.get_or_set("key", lambda: "new", 100, stale=1000)
        until(lambda: cache.get("key") == "new", "the refreshed value")
        until(lambda: _refresh_lease(cache) is None, "the end of the refresh")
        return cache.get("key")

    Overtaken.meanwhile[:] = [refresh]
    return cache


def test_a_reader_that_a_refresh_overtakes_computes_nothing(build: Build) -> None:
    cache, factory = _overtaken(build, "inline"), Factory("never")
    assert cache.get_or_set("key", factory, 100, stale=1000) == "new"
    assert _refresh_lease(cache) is None
    assert factory.runs == 0


def test_a_reader_that_a_refresh_overtakes_starts_no_other(build: Build) -> None:
    cache, factory = _overtaken(build, "thread"), Factory("never")
    assert isinstance(cache.get_or_set("key", factory, 100, stale=1000), Overtaken)
    until(lambda: _refresh_lease(cache) is None, "the lease to be given back")
    assert factory.runs == 0
    assert cache.get("key") == "new"


@pytest.mark.parametrize("mode", ["inline", "thread"])
async def test_a_task_that_a_refresh_overtakes_computes_nothing(build: Build, mode: str) -> None:
    cache, factory = _overtaken(build, mode), Factory("never")
    async with asyncio.timeout(DEADLINE_S):
        found = await cache.aget_or_set("key", factory, 100, stale=1000)
        assert found == "new" if mode == "inline" else isinstance(found, Overtaken)
        gone = "the lease to be given back"
        await asyncio.to_thread(until, lambda: _refresh_lease(cache) is None, gone)
    assert factory.runs == 0
    assert cache.get("key") == "new"


def test_a_reader_that_a_delete_overtakes_stores_what_it_computes(build: Build) -> None:
    cache = _overtaken(build, "inline")
    Overtaken.meanwhile[:] = [lambda: cache.delete("key") or "new"]
    assert cache.get_or_set("key", lambda: "computed", 100, stale=1000) == "computed"
    assert cache.get("key") == "computed"


@pytest.mark.parametrize("write", ["set", "delete"])
def test_a_write_in_mid_refresh_voids_it(build: Build, write: str) -> None:
    cache = build("inline", OPTIONS={"refresh": "inline"})
    _past_its_deadline(cache)
    factory = Factory("refreshed")
    holder = Calling(lambda: cache.get_or_set("key", factory, 100, stale=1000))
    assert factory.running.wait(DEADLINE_S)
    cache.set("key", "written") if write == "set" else cache.delete("key")
    factory.go_on.set()
    assert holder.outcome() == "refreshed"
    assert cache.get("key", "absent") == ("written" if write == "set" else "absent")


def test_jitter_spreads_deadlines(cache: SharedCache) -> None:
    for number in range(20):
        cache.get_or_set(f"key-{number}", lambda: 1, 1000, jitter=0.5)
    left = [cache.ttl(f"key-{number}") or 0 for number in range(20)]
    assert all(490 <= seconds <= 1000 for seconds in left)
    assert len(set(left)) > 5


@pytest.mark.parametrize(
    "wrong", [{"stale": -1}, {"jitter": 2}, {"jitter": -0.1}], ids=["stale", "jitter", "negative"]
)
def test_wrong_times_are_refused(cache: SharedCache, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        cache.get_or_set("key", lambda: 1, 100, None, **wrong)
    assert "key" not in cache


async def test_a_stale_value_is_refreshed_by_one_task(cache: SharedCache) -> None:
    _past_its_deadline(cache)
    runs = 0

    async def factory() -> str:
        nonlocal runs
        runs += 1
        return "new"

    async with asyncio.timeout(DEADLINE_S):
        assert await cache.aget_or_set("key", factory, 100, stale=1000) == "old"
        await asyncio.to_thread(until, lambda: cache.get("key") == "new", "the refreshed value")
    assert runs == 1
