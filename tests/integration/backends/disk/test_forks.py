"""Threads, signal handlers and forks: no connection is shared, none is left behind."""

import contextlib
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.local.sqlite_connections import ThreadConnections
from cacheapp.errors import ReentrantCall
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.integration.backends.children import HUNG, end_of, in_child
from tests.integration.backends.disk.parts import LARGE, databases, open_databases, ours, stock
from tests.integration.interrupts import handled_again_and_again, interrupted_in

# Python 3.12 warns about every fork under threads; these tests show that it is survived.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@contextlib.contextmanager
def _threads(body: Callable[[], None], count: int) -> Iterator[None]:
    """Run `body` repeatedly in threads; raise the first exception."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                body()
        except BaseException as exc:  # noqa: BLE001 (raised below, in the test's thread)
            failed.append(exc)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failed == []


def _is_inside(thread: ThreadConnections) -> bool:
    """Return True if the thread of these connections is inside an operation."""
    if thread.lock.acquire(blocking=False):
        thread.lock.release()
        return False
    return True


def _use(cache: Any) -> bool:
    key = f"child-{os.getpid()}"
    cache.set(key, b"x" * LARGE)
    cache.set(key, 1)
    return bool(cache.incr(key) == 2 and cache.get(key) == 2 and cache.delete(key))


def test_a_fork_among_busy_threads_leaves_both_sides_working(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, shards=2, size_limit=2**24)
    cache.set("busy", 0)

    def body() -> None:
        cache.set(f"key-{threading.get_ident()}", work.checked(LARGE, 1))
        cache.incr("busy")

    with _threads(body, 3):
        ends = [end_of(in_child(lambda: _use(cache))) for _ in range(15)]
    assert ends == [0] * 15
    assert _use(cache)


def test_the_child_inherits_no_connection(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({f"key-{n}": n for n in range(50)})
    hold, opened = threading.Event(), threading.Event()

    def other() -> None:
        cache.get("key-1")
        opened.set()
        hold.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert opened.wait(30)
    assert len(open_databases(tmp_path)) > 10
    assert end_of(in_child(lambda: open_databases(tmp_path) == [])) == 0
    assert cache.get("key-1") == 1
    hold.set()
    thread.join()


def test_a_fork_waits_for_the_transaction_in_flight(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path, shards=1, database_timeout=100)
    cache.set("key", 0)
    (path,) = databases(tmp_path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: cache.incr("key"))
    thread.start()
    handles = cache._store._database.registry  # noqa: SLF001 (when is it inside?)
    until(lambda: any(_is_inside(handle) for handle in handles._all), "the thread to wait")  # noqa: SLF001
    release = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    release.start()
    child = in_child(lambda: cache.get("key") == 1 and cache.incr("key") == 2)
    assert end_of(child) == 0
    thread.join()
    release.join()
    other.close()
    assert cache.get("key") == 2


def test_a_fork_that_a_signal_interrupts_leaves_both_sides_working(
    settings: Settings, tmp_path: Path
) -> None:
    """Python still forks, and prints the exception of the handler."""
    cache = ours(settings, tmp_path, shards=1, database_timeout=100)
    cache.set("key", 0)
    other = sqlite3.connect(databases(tmp_path)[0], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: cache.incr("key"))
    thread.start()
    handles = cache._store._database.registry  # noqa: SLF001 (when is it inside?)
    until(lambda: any(_is_inside(handle) for handle in handles._all), "the thread to wait")  # noqa: SLF001
    interrupted: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        interrupted.append(number)
        release = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
        release.start()
        raise KeyboardInterrupt

    ignored = []
    before, sys.unraisablehook = sys.unraisablehook, lambda found: ignored.append(found.exc_type)
    handler = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with interrupted_in("before_fork"):
            child = in_child(lambda: cache.get("key") == 1 and cache.incr("key") == 2)
    finally:
        sys.unraisablehook = before
        signal.signal(signal.SIGUSR1, handler)
    assert end_of(child) == 0
    thread.join(30)
    assert not thread.is_alive()
    other.close()
    assert interrupted == [signal.SIGUSR1]
    assert ignored == [KeyboardInterrupt]
    assert cache.get("key") == 2


def test_with_the_stock_backend_the_child_blocks_for_ever(
    settings: Settings, tmp_path: Path
) -> None:
    cache = stock(settings, tmp_path)
    cache.set("key", 0)
    shard = cache._cache._hash("nothing") % 8  # noqa: SLF001
    begun, end = threading.Event(), threading.Event()

    def transaction() -> None:
        with cache._cache._shards[shard].transact():  # noqa: SLF001
            begun.set()
            end.wait(30)
        cache.close()  # this thread's connections

    thread = threading.Thread(target=transaction)
    thread.start()
    assert begun.wait(30)
    child = in_child(lambda: cache._cache._shards[shard].set("key", 1, retry=True))  # noqa: SLF001
    # The parent's transaction ends, and the child still waits for the lock that it "inherited".
    end.set()
    thread.join()
    assert end_of(child, within_s=2) == HUNG
    cache.close()


def test_a_signal_handler_may_fork_inside_an_operation(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path, shards=1)
    cache.set_many({"counter": 0, "by-children": 0})
    children: list[int] = []

    def fork() -> None:
        if len(children) < 40:
            children.append(in_child(lambda: cache.incr("by-children")))

    total = 0
    with handled_again_and_again(fork):
        while len(children) < 40 or total < 300:
            total += 1
            assert cache.incr("counter") == total
    assert [end_of(pid) for pid in children] == [0] * len(children)
    assert cache.get("counter") == total
    assert cache.get("by-children") == len(children)
    handle = cache._store._database.registry.current()  # noqa: SLF001
    assert handle.closed_by_forks > 0, (
        "no signal came inside an operation: this test has shown nothing"
    )


def test_a_signal_handler_inside_an_operation_works_or_is_refused_at_once(
    settings: Settings, tmp_path: Path
) -> None:
    # One that waits for itself gives up after that time, with another error.
    cache = ours(settings, tmp_path, shards=2, database_timeout=100)
    cache.set_many({"outer": 0, "inner": 0, "read": "by the handler"})
    seen: list[Any] = []
    refused: list[str] = []
    written = 0
    longest_s = 0.0

    def use() -> None:
        nonlocal written, longest_s
        began_s = time.monotonic()
        try:
            seen.append(cache.get("read"))
            cache.incr("inner")
            written += 1
        except ReentrantCall as exc:
            refused.append(str(exc))
        longest_s = max(longest_s, time.monotonic() - began_s)

    total = 0
    with handled_again_and_again(use):
        while len(seen) < 100 or len(refused) < 100:
            total += 1
            assert cache.incr("outer") == total
    assert set(seen) == {"by the handler"}
    assert cache.get("inner") == written
    assert "is inside another operation" in refused[0]
    assert refused[0].endswith("nothing was done")
    assert longest_s < 50


def test_the_connections_of_threads_that_ended_are_closed(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({f"key-{n}": n for n in range(50)})
    keys = [f"key-{n}" for n in range(50)]
    opened = []
    for _ in range(20):
        thread = threading.Thread(target=lambda: cache.get_many(keys))
        thread.start()
        thread.join()
        opened.append(len(open_databases(tmp_path)))
    # SQLite keeps the descriptors of a closed connection for its next one to the same file, while
    # others are open: only the growth must end.
    assert set(opened) == {opened[0]}


def test_the_end_of_a_request_closes_nothing(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({f"key-{n}": n for n in range(50)})
    before = sorted(open_databases(tmp_path))
    cache.close()
    assert cache.get("key-1") == 1
    assert sorted(open_databases(tmp_path)) == before


def test_with_the_stock_backend_the_end_of_a_request_closes_every_connection(
    settings: Settings, tmp_path: Path
) -> None:
    cache = stock(settings, tmp_path)
    cache.set_many({f"key-{n}": n for n in range(50)})
    assert len(open_databases(tmp_path)) > 8
    cache.close()
    assert open_databases(tmp_path) == []
