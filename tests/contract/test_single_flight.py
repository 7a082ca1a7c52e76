"""`get_or_set` in one process: one computation, void leases."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until
from tests.contract.calls import DEADLINE_S, Calling, Factory
from tests.contract.conftest import Build
from tests.contract.renewals import renewals


def _waits(cache: SharedCache) -> int:
    return cache.stats()["lease_waits"]


def test_all_threads_get_the_value_of_one_call(cache: SharedCache) -> None:
    factory = Factory("value")
    before = cache.stats()
    threads = [Calling(lambda: cache.get_or_set("key", factory, 100)) for _ in range(8)]
    until(lambda: _waits(cache) - before["lease_waits"] == 7, "seven threads to wait")
    factory.go_on.set()
    assert [thread.outcome() for thread in threads] == ["value"] * 8
    assert factory.runs == 1
    assert cache.get("key") == "value"
    assert 90 < (cache.ttl("key") or 0) <= 100
    after = cache.stats()
    assert after["factory_runs"] - before["factory_runs"] == 1
    assert after["factory_us"] > before["factory_us"]


def test_a_hit_calls_nothing(cache: SharedCache) -> None:
    cache.set("key", None)
    assert cache.get_or_set("key", Factory("never")) is None
    assert cache.get_or_set("other", "plain value") == "plain value"
    assert cache.get("other") == "plain value"


def test_a_timeout_of_zero_computes_and_keeps_nothing(cache: SharedCache) -> None:
    assert cache.get_or_set("key", lambda: "value", 0) == "value"
    assert "key" not in cache
    assert cache.get_or_set("key", lambda: "other", 0) == "other"


def test_while_it_is_computed_the_key_is_absent_for_all_others(cache: SharedCache) -> None:
    factory = Factory("value")
    holder = Calling(lambda: cache.get_or_set("key", factory, 100))
    assert factory.running.wait(DEADLINE_S)
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    assert not cache.has_key("key")
    assert cache.ttl("key") == 0
    assert cache.persist("key") is False
    assert cache.keys("*") == []
    assert cache.touch("key", 50) is False
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key", 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("key")
    assert cache.delete("key", version=2) is False
    factory.go_on.set()
    assert holder.outcome() == "value"
    assert cache.get("key") == "value"


def _set_and_incr(cache: SharedCache) -> int:
    cache.set("key", 1)
    return cache.incr("key")


VOIDS: dict[str, Callable[[SharedCache], Any]] = {
    "set": lambda cache: cache.set("key", "written"),
    "set_many": lambda cache: cache.set_many({"key": "written"}),
    "add": lambda cache: cache.add("key", "written"),
    "set and incr": _set_and_incr,
    "delete of the absent": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
    "delete_pattern": lambda cache: cache.delete_pattern("k*"),
    "clear": lambda cache: cache.clear(),
    "set with no timeout left": lambda cache: cache.set("key", "written", 0),
}


@pytest.mark.parametrize("void", VOIDS.values(), ids=VOIDS)
def test_a_write_in_mid_factory_voids_the_lease(
    cache: SharedCache, void: Callable[[SharedCache], Any]
) -> None:
    factory = Factory("stale")
    before = cache.stats()["voided_fills"]
    holder = Calling(lambda: cache.get_or_set("key", factory, 100))
    assert factory.running.wait(DEADLINE_S)
    answer = void(cache)
    assert answer in (None, True, False, 0, [], 2)
    written = cache.get("key", "absent")
    factory.go_on.set()
    assert holder.outcome() == "stale"  # its own caller gets it
    assert cache.get("key", "absent") == written  # and no other caller
    assert cache.stats()["voided_fills"] - before == 1
    if written == "absent":
        assert answer in (None, False, 0)
        assert cache.get_or_set("key", lambda: "new") == "new"


def test_a_caller_after_a_void_does_not_wait_for_the_old_value(cache: SharedCache) -> None:
    factory = Factory("old")
    holder = Calling(lambda: cache.get_or_set("key", factory, 100))
    assert factory.running.wait(DEADLINE_S)
    cache.delete("key")
    assert cache.get_or_set("key", lambda: "new", 100) == "new"
    factory.go_on.set()
    assert holder.outcome() == "old"
    assert cache.get("key") == "new"


def test_an_exception_goes_to_its_caller_and_one_waiter_tries_next(cache: SharedCache) -> None:
    factory = Factory(LookupError("first"), "second")
    before = _waits(cache)
    threads = [Calling(lambda: cache.get_or_set("key", factory, 100)) for _ in range(4)]
    until(lambda: _waits(cache) - before == 3, "three threads to wait")
    factory.go_on.set()
    outcomes = [thread.outcome() for thread in threads]
    assert sorted(map(repr, outcomes)) == ["'second'"] * 3 + ["LookupError('first')"]
    assert factory.runs == 2


def test_a_value_that_cannot_be_stored_releases_the_lease(cache: SharedCache) -> None:
    with pytest.raises(TypeError, match="cannot store"):
        cache.get_or_set("key", threading.Lock)
    assert cache.get_or_set("key", lambda: "value") == "value"


def test_nesting_in_opposite_orders_does_not_deadlock(cache: SharedCache) -> None:
    both = threading.Barrier(2)

    def nested(outer: str, inner: str) -> str:
        def factory() -> str:
            both.wait(DEADLINE_S)  # each holds its outer lease
            found: str = cache.get_or_set(inner, lambda: f"{inner} for {outer}", 100)
            both.wait(DEADLINE_S)  # and has got the inner value while the other still holds it
            return f"{outer} of {found}"

        result: str = cache.get_or_set(outer, factory, 100)
        return result

    first = Calling(lambda: nested("a", "b"))
    second = Calling(lambda: nested("b", "a"))
    assert first.outcome() == "a of b for a"
    assert second.outcome() == "b of a for b"


def test_a_factory_that_hangs_delays_no_caller_longer_than_the_wait(build: Build) -> None:
    cache = build("hasty", OPTIONS={"lease_wait": 0.2})
    hangs = Factory("late")
    holder = Calling(lambda: cache.get_or_set("key", hangs, 100))
    assert hangs.running.wait(DEADLINE_S)
    assert cache.get_or_set("key", lambda: "in time", 100) == "in time"
    assert cache.get("key") == "in time"
    hangs.go_on.set()
    assert holder.outcome() == "late"
    assert cache.get("key") == "in time"


def test_a_lease_is_renewed_while_its_factory_runs(build: Build) -> None:
    cache = build("short", OPTIONS={"lease_time": 9.0})  # renewed every 3 s
    factory = Factory("value")
    with renewals(cache) as renewed:
        threads = [Calling(lambda: cache.get_or_set("key", factory, 100)) for _ in range(2)]
        assert factory.running.wait(DEADLINE_S)
        until(lambda: len(renewed) >= 2, "the lease to be renewed again and again", DEADLINE_S)
        factory.go_on.set()
        assert [thread.outcome() for thread in threads] == ["value", "value"]
    assert factory.runs == 1


# -- the async twin ---------------------------------------------------------------------------


async def test_all_tasks_get_the_value_of_one_call(cache: SharedCache) -> None:
    runs = 0
    go_on = asyncio.Event()

    async def factory() -> str:
        nonlocal runs
        runs += 1
        await go_on.wait()
        return "value"

    tasks = [asyncio.create_task(cache.aget_or_set("key", factory, 100)) for _ in range(20)]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.to_thread(until, lambda: _waits(cache) == 19, "nineteen tasks to wait")
        go_on.set()
        assert await asyncio.gather(*tasks) == ["value"] * 20
    assert runs == 1
    assert await cache.aget_or_set("key", factory) == "value"
    assert await cache.aget_or_set("plain", lambda: "sync") == "sync"


async def test_a_cancelled_factory_releases_the_lease(cache: SharedCache) -> None:
    running = asyncio.Event()

    async def factory() -> str:
        running.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(cache.aget_or_set("key", factory, 100))
    async with asyncio.timeout(DEADLINE_S):
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await cache.aget_or_set("key", lambda: "value") == "value"


async def test_a_task_cancelled_at_any_moment_leaves_no_lease(build: Build) -> None:
    cache = build("patient", OPTIONS={"lease_time": 1000.0})

    async def factory() -> str:
        await asyncio.Event().wait()
        return "never"

    async with asyncio.timeout(4 * DEADLINE_S):
        for turns in range(40):
            key = f"key-{turns}"
            task = asyncio.create_task(cache.aget_or_set(key, factory, 100))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            waits = _waits(cache)
            assert await cache.aget_or_set(key, lambda: "value") == "value"
            assert _waits(cache) == waits, "the lease is not held"


class _Exit(BaseException):
    """Not an `Exception`."""


@pytest.mark.parametrize(
    "error", [StopIteration("x"), GeneratorExit(), _Exit(), StopAsyncIteration()]
)
def test_every_exception_of_a_factory_reaches_its_caller_as_it_is(
    cache: SharedCache, error: BaseException
) -> None:
    def failing() -> str:
        raise error

    with pytest.raises(type(error)) as raised:
        cache.get_or_set("key", failing)
    assert raised.value is error
    assert cache.get_or_set("key", lambda: "value") == "value"
    assert cache.stats()["lease_waits"] == 0


async def test_a_coroutine_that_exits_releases_the_lease(cache: SharedCache) -> None:
    async def failing() -> str:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        await cache.aget_or_set("key", failing)
    assert await cache.aget_or_set("key", "value") == "value"
    assert cache.stats()["lease_waits"] == 0


async def test_a_task_that_outlives_the_factory_that_started_it_waits_for_leases(
    cache: SharedCache,
) -> None:
    ended, running, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks = []

    async def outliving() -> Any:
        await ended.wait()
        return await cache.aget_or_set("inner", "a second computation")

    async def factory() -> str:
        tasks.append(asyncio.create_task(outliving()))
        return "outer"

    async def slow() -> str:
        running.set()
        await go_on.wait()
        return "the value of one call"

    assert await cache.aget_or_set("outer", factory) == "outer"
    computing = asyncio.create_task(cache.aget_or_set("inner", slow))
    await running.wait()
    ended.set()
    await asyncio.to_thread(until, lambda: _waits(cache), "the task to wait")
    go_on.set()
    assert await tasks[0] == await computing == "the value of one call"
