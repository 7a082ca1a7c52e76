"""What every shared backend promises to signal handlers and finalisers, which run inside any operation."""

import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import ReentrantCall
from cacheapp.processes.waiting import until
from tests.contract.conftest import Build
from tests.integration.interrupts import handled_again_and_again

LONGEST_S = 30.0  # a call that waits for its own thread gives up after a minute, or never


class _Calls:
    """Calls from within other operations: how many worked, how many were refused, how long."""

    def __init__(self) -> None:
        self.worked = 0
        self.refused = 0
        self.longest_s = 0.0

    def run(self, call: Callable[[], object]) -> None:
        began_s = time.monotonic()
        try:
            call()
        except ReentrantCall:
            self.refused += 1
        else:
            self.worked += 1
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)


@contextlib.contextmanager
def _writers(cache: SharedCache) -> Iterator[None]:
    """Write from other threads of this process."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                cache.set("by-a-thread", 1)
                time.sleep(0.001)
        except BaseException as exc:  # noqa: BLE001 (raised below, in the test's thread)
            failed.append(exc)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failed == []


def test_a_signal_handler_may_read_inside_an_operation(cache: SharedCache) -> None:
    cache.set_many({"outer": 0, "read": "by the handler"})
    seen: list[object] = []
    calls = _Calls()
    total = 0

    def enough() -> bool:
        nonlocal total
        for _ in range(20):
            total += 1
            assert cache.incr("outer") == total
            cache.stats()
        return calls.worked + calls.refused >= 200

    with handled_again_and_again(lambda: calls.run(lambda: seen.append(cache.get("read")))):
        until(enough, "enough signals", within_s=120)
    assert set(seen) == {"by the handler"}
    assert calls.longest_s < LONGEST_S


def test_a_signal_handler_may_write_inside_an_operation(cache: SharedCache) -> None:
    cache.set_many({"outer": 0, "inner": 0}, timeout=None)
    calls = _Calls()
    total = 0
    longest_s = 0.0

    def enough() -> bool:
        nonlocal total, longest_s
        for _ in range(20):
            total += 1
            began_s = time.monotonic()
            assert cache.incr("outer") == total
            longest_s = max(longest_s, time.monotonic() - began_s)
        return calls.worked + calls.refused >= 200

    with _writers(cache), handled_again_and_again(lambda: calls.run(lambda: cache.incr("inner"))):
        until(enough, "enough signals", within_s=120)
    assert cache.get("inner") == calls.worked
    assert cache.get("outer") == total
    assert max(longest_s, calls.longest_s) < LONGEST_S


def test_a_finaliser_may_write_inside_an_operation(cache: SharedCache) -> None:
    cache.set_many({"outer": 0, "inner": 0}, timeout=None)
    calls = _Calls()

    class Garbage:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            calls.run(lambda: cache.incr("inner"))

    thresholds = gc.get_threshold()
    gc.set_threshold(7)  # collect inside many operations
    try:
        for total in range(1, 301):
            Garbage()
            assert cache.incr("outer") == total
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert calls.worked + calls.refused == 300
    assert cache.get("inner") == calls.worked
    assert calls.longest_s < LONGEST_S


@pytest.mark.parametrize("stale", [0, 60], ids=["fresh", "stale"])
def test_a_signal_handler_never_waits_for_a_lease_of_its_own_thread(
    build: Build, stale: float
) -> None:
    cache = build("inline", OPTIONS={"refresh": "inline"})
    keys = map(str, itertools.count())
    current = [next(keys)]
    calls = _Calls()
    values: set[str] = set()

    def get(value: str) -> None:
        values.add(cache.get_or_set(current[0], lambda: value, 60, stale=stale))

    def enough() -> bool:
        for _ in range(20):
            key = next(keys)
            if stale:
                cache.set(key, "old", 0.00001, stale=stale)
            current[0] = key
            get("outer")
        return calls.worked + calls.refused >= 200

    # Python 3.11 may crash if its collector runs inside `ContextVar.set`, and a handler in a finaliser sets
    # the variable too (python/cpython#148891). From 3.12 on it runs between bytecodes only.
    gc.disable()
    try:
        with handled_again_and_again(lambda: calls.run(lambda: get("inner"))):
            until(enough, "enough signals", within_s=120)
    finally:
        gc.enable()
    assert "inner" in values
    assert values <= {"old", "outer", "inner"}
    assert cache.stats()["lease_waits"] == 0
