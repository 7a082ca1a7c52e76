"""What subscribers get: each call of the application once, on every backend."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from cacheapp.backends.core import operations
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import subscribe
from cacheapp.backends.core.shared import SharedCache
from cacheapp.cached import cached
from cacheapp.processes.waiting import until


@pytest.fixture
def seen(cache: SharedCache) -> Iterator[list[Operation]]:
    """The operations of this process while the test runs."""
    found: list[Operation] = []
    end = subscribe(found.append)
    yield found
    end()


def _short(operations: list[Operation]) -> list[tuple[str, tuple[Any, ...], int | None]]:
    return [(it.operation, it.keys, it.hits) for it in operations]


def _events(caplog: pytest.LogCaptureFixture) -> list[str | None]:
    """Return the events that the module has logged: a thread of another test may log others."""
    own = [it for it in caplog.records if it.name == operations.__name__]
    return [getattr(it, "event", None) for it in own]


CALLS: list[tuple[str, Callable[[SharedCache], Any], tuple[Any, ...], int | None]] = [
    ("get", lambda it: it.get("there"), ("there",), 1),
    ("get", lambda it: it.get(key="not", default=3), ("not",), 0),
    ("set", lambda it: it.set("new", [1]), ("new",), None),
    ("set", lambda it: it.set("new", [1], nx=True), ("new",), None),
    ("add", lambda it: it.add("new", value=1), ("new",), None),
    ("has_key", lambda it: "there" in it, ("there",), 1),
    ("has_key", lambda it: it.has_key("not"), ("not",), 0),
    ("delete", lambda it: it.delete("there"), ("there",), None),
    ("touch", lambda it: it.touch("there", 9), ("there",), None),
    ("get_or_set", lambda it: it.get_or_set("there", 1), ("there",), 1),
    ("get_or_set", lambda it: it.get_or_set("not", default=lambda: 1), ("not",), 0),
    ("incr", lambda it: it.incr("number"), ("number",), None),
    ("incr", lambda it: it.incr("number", 2**70), ("number",), None),
    ("decr", lambda it: it.decr("number"), ("number",), None),
    ("incr_version", lambda it: it.incr_version("there"), ("there",), None),
    ("decr_version", lambda it: it.decr_version("second", version=2), ("second",), None),
    ("get_many", lambda it: it.get_many(iter(["there", "not"])), ("there", "not"), 1),
    ("set_many", lambda it: it.set_many({"a": 1, "b": 2}), ("a", "b"), None),
    ("delete_many", lambda it: it.delete_many(iter(["there"])), ("there",), None),
    ("ttl", lambda it: it.ttl("there"), ("there",), 1),
    ("pttl", lambda it: it.pttl("not"), ("not",), 0),
    ("expire", lambda it: it.expire("there", timedelta(seconds=9)), ("there",), None),
    ("persist", lambda it: it.persist("there"), ("there",), None),
    ("keys", lambda it: it.keys("th*"), (), None),
    ("iter_keys", lambda it: list(it.iter_keys("*")), (), None),
    ("delete_pattern", lambda it: it.delete_pattern("th*"), (), None),
    ("clear", lambda it: it.clear(), (), None),
    ("get", lambda it: asyncio.run(it.aget("there")), ("there",), 1),
    ("get", lambda it: asyncio.run(it.aget("not", 3)), ("not",), 0),
    ("set", lambda it: asyncio.run(it.aset("new", 1)), ("new",), None),
    ("incr", lambda it: asyncio.run(it.aincr("number")), ("number",), None),
    ("get_many", lambda it: asyncio.run(it.aget_many(["there"])), ("there",), 1),
    ("set_many", lambda it: asyncio.run(it.aset_many({"a": 1})), ("a",), None),
    ("get_or_set", lambda it: asyncio.run(it.aget_or_set("not", lambda: 1)), ("not",), 0),
    ("keys", lambda it: asyncio.run(it.akeys("th*")), (), None),
    ("clear", lambda it: asyncio.run(it.aclear()), (), None),
]


def test_each_call_is_reported_once_with_its_own_result(
    cache: SharedCache, seen: list[Operation]
) -> None:
    for name, call, keys, hits in CALLS:
        cache.set_many({"there": "value", "number": 5})
        cache.set("second", 1, version=2)
        cache.delete("not")
        seen.clear()
        call(cache)
        assert _short(seen) == [(name, keys, hits)], call
        (found,) = seen
        assert (found.alias, found.backend) == ("default", type(cache).__name__)
        assert found.seconds > 0
        assert found.error is None


def test_reported_calls_return_what_the_others_return(cache: SharedCache) -> None:
    def results() -> list[Any]:
        found = []
        for _, call, _, _ in CALLS:
            cache.clear()
            cache.set_many({"there": "value", "number": 5})
            cache.set("second", 1, version=2)
            found.append(call(cache))
        return found

    unobserved = results()
    end = subscribe(lambda _operation: None)
    observed = results()
    end()
    assert observed == unobserved


def test_a_factory_is_measured_and_its_calls_are_operations_of_their_own(
    cache: SharedCache, seen: list[Operation]
) -> None:
    cache.set("inner", 1)
    seen.clear()
    assert cache.get_or_set("outer", lambda: cache.get("inner")) == 1
    assert _short(seen) == [("get", ("inner",), 1), ("get_or_set", ("outer",), 0)]
    assert seen[1].seconds >= seen[1].factory_seconds >= seen[0].seconds


def test_an_awaited_factory_is_measured_too(cache: SharedCache, seen: list[Operation]) -> None:
    async def compute() -> Any:
        await asyncio.sleep(0)
        return await cache.aget("inner", 2)

    assert asyncio.run(cache.aget_or_set("outer", compute)) == 2
    assert _short(seen) == [("get", ("inner",), 0), ("get_or_set", ("outer",), 0)]
    assert seen[1].seconds >= seen[1].factory_seconds >= seen[0].seconds


def test_a_factory_runs_in_the_context_managers_of_the_subscribers(
    cache: SharedCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_failures", LogThrottle())
    steps: list[str] = []

    @contextlib.contextmanager
    def around(operation: Operation) -> Iterator[None]:
        assert operation.seconds > 0
        cache.get("of-the-subscriber")  # not reported
        steps.append(f"begin {operation.keys[0]}")
        yield
        steps.append("end")

    @contextlib.contextmanager
    def failing(_operation: Operation) -> Iterator[None]:
        yield
        raise RuntimeError("the subscriber's own")

    def compute() -> int:
        steps.append("compute")
        cache.get("inner")
        return 1

    async def acompute() -> int:
        return compute()

    computed = ["begin key", "compute", "get", "end", "get_or_set"]
    with contextlib.ExitStack() as stack:
        stack.callback(subscribe(lambda it: steps.append(it.operation), around))
        stack.callback(subscribe(lambda _operation: None, failing))
        assert cache.get_or_set("key", compute) == 1
        assert steps == computed
        assert cache.get_or_set("key", compute) == 1
        assert steps == [*computed, "get_or_set"]
        cache.delete("key")
        steps.clear()
        assert asyncio.run(cache.aget_or_set("key", acompute)) == 1
        assert steps == ["begin key", "end", "begin key", *computed[1:]]  # called, then awaited
    assert _events(caplog) == ["operation_subscriber_failed"]
    cache.delete("key")
    steps.clear()
    assert cache.get_or_set("key", compute) == 1
    assert steps == ["compute"]


@cached(60)
def double(number: int) -> int:
    return 2 * number


@cached(60)
async def adouble(number: int) -> int:
    return 2 * number


def test_a_cached_function_is_one_get_or_set_per_call(
    cache: SharedCache, seen: list[Operation]
) -> None:
    double(1), double(1)
    asyncio.run(adouble(1))
    assert [(it.operation, it.hits) for it in seen] == [("get_or_set", n) for n in (0, 1, 0)]
    double.invalidate(1)
    assert seen[-1].operation == "delete"


def test_a_caller_that_waits_for_the_value_of_another_reports_how_long(
    cache: SharedCache, seen: list[Operation]
) -> None:
    computing, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        computing.set()
        assert go_on.wait(30)
        return 1

    before = cache.own_stats()["lease_waits"]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_set, "key", slow)
        assert computing.wait(30)
        second = pool.submit(cache.get_or_set, "key", lambda: 2)
        until(lambda: cache.own_stats()["lease_waits"] > before, "a waiting caller", 60)
        go_on.set()
        assert (second.result(30), first.result(30)) == (1, 1)
    waited = {it.waited_seconds > 0: it for it in seen}
    assert waited[True].factory_seconds == 0
    assert waited[False].factory_seconds > 0
    assert (waited[True].hits, waited[False].hits) == (0, 0)


def test_a_lock_is_one_acquire_and_one_release(cache: SharedCache, seen: list[Operation]) -> None:
    with cache.lock("door", timeout=30) as held:
        assert not cache.lock("door").acquire(blocking_timeout=0.01)
        held.extend(5)

    async def with_lock() -> None:
        async with cache.lock("door", timeout=30):
            pass

    asyncio.run(with_lock())
    assert [(it.operation, it.keys, it.alias) for it in seen] == [
        (f"lock_{what}", ("door",), "default")
        for what in ("acquire", "acquire", "extend", "release", "acquire", "release")
    ]
    assert [it.waited_seconds > 0 for it in seen] == [False, True, *[False] * 4]


def test_the_size_is_that_of_the_stored_values(cache: SharedCache, seen: list[Operation]) -> None:
    sizes: list[int] = []
    end = subscribe(lambda operation: sizes.append(operation.bytes))
    cache.set("key", "x" * 1000)
    cache.get("key")
    cache.get_many(["key"])
    cache.get("not")
    cache.set("number", 7)
    end()
    assert all(1000 < size < 1200 for size in sizes[:3])
    assert sizes[3:] == [0, 8]
    assert [list(it.values) for it in seen] == [[]] * 5  # no value is kept alive


def test_an_error_is_reported_and_raised(cache: SharedCache, seen: list[Operation]) -> None:
    with pytest.raises(ValueError, match="not found"):
        cache.incr("not")
    assert [(it.operation, type(it.error)) for it in seen] == [("incr", ValueError)]

    def fail() -> int:
        raise KeyError("it")

    with pytest.raises(KeyError):
        cache.get_or_set("key", fail)
    assert [(it.operation, type(it.error)) for it in seen[1:]] == [("get_or_set", KeyError)]


def test_a_subscriber_that_fails_or_uses_the_cache_harms_no_caller(
    cache: SharedCache,
    seen: list[Operation],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "_failures", LogThrottle())

    def failing(operation: Operation) -> None:
        cache.incr("reported") if cache.add("reported", 1) is False else None
        raise RuntimeError("the subscriber's own")

    end = subscribe(failing)
    cache.set("key", 1)
    assert cache.get("key") == 1
    end()
    assert [it.operation for it in seen] == ["set", "get"]
    assert cache.get("reported") == 2
    assert _events(caplog) == ["operation_subscriber_failed"]


def test_a_subscriber_may_list_the_keys(cache: SharedCache, seen: list[Operation]) -> None:
    cache.set("key", 1)
    listed: list[list[str]] = []
    end = subscribe(lambda _operation: listed.append(list(cache.iter_keys("*"))))
    assert list(cache.iter_keys("*")) == ["key"]
    cache.get("key")  # reported: the listing is no longer in progress
    end()
    assert listed == [["key"], ["key"]]
    assert [it.operation for it in seen] == ["set", "iter_keys", "get"]


def test_without_a_subscriber_the_methods_are_those_of_the_class(cache: SharedCache) -> None:
    own = {name: getattr(type(cache), name) for name in ("get", "set", "aget", "incr", "clear")}
    first, second = subscribe(print), subscribe(repr)
    assert all(getattr(type(cache), name) is not method for name, method in own.items())
    first()
    first()  # ends nothing a second time
    assert type(cache).get is not own["get"]
    second()
    assert {name: getattr(type(cache), name) for name in own} == own


def test_a_class_that_is_first_used_later_reports_too(
    cache: SharedCache, seen: list[Operation]
) -> None:
    class Own(type(cache)):  # type: ignore[misc]
        def get(self, key: Any, *args: Any, **kwargs: Any) -> Any:
            return super().get(key, *args, **kwargs)

    own = Own(cache.location, cache.params)
    own.set("key", 1)
    assert own.get("key") == 1
    assert [(it.operation, it.backend) for it in seen] == [("set", "Own"), ("get", "Own")]


def test_threads_and_a_forked_child_report_all_their_operations(
    cache: SharedCache, seen: list[Operation]
) -> None:
    def work() -> None:
        for number in range(50):
            cache.set("key", number)
            cache.get("key")

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result(60)
    assert len(seen) == 400
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0 if len(seen) == 500 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(seen) == 400
