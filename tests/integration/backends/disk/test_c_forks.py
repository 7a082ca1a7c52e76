"""Forks by C code, of which Python's hooks learn nothing, as uWSGI does without `lazy-apps`."""

import functools
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import pause, until
from tests.integration.backends.children import end_of, in_child_of_c, is_asleep
from tests.integration.backends.disk.parts import LARGE, databases, ours
from tests.integration.backends.own_process import in_own_process


def _idle_thread(work: Callable[[], object]) -> None:
    """Run a function in a thread that then stays, asleep."""

    def run() -> None:
        work()
        pause(1000)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: is_asleep(thread), "the thread to be idle")


def _use(cache: Any, number: int) -> bool:
    """Use all parts of the cache; no thread is started, so that none waits for the GIL at a fork.

    Without Python's hooks, the child would inherit the GIL with threads that wait for it, which do
    not exist there; its own threads may then hang, with or without a cache.
    """
    for _ in range(20):
        cache.incr("counter")
    cache.set(f"large-{number}", b"x" * LARGE)
    with cache.lock(f"lock-{number}", blocking=False) as lock:
        held = lock.owned()
    cache.stats()
    return bool(held and len(cache.get(f"large-{number}")) == LARGE)


def _compute(cache: Any, number: int) -> bool:
    return _use(cache, number) and cache.get_or_set(f"computed-{number}", lambda: number) == number


@in_own_process
def test_parent_and_children_go_on_after_forks_in_c(settings: Settings, tmp_path: Path) -> None:
    # Longer than `end_of` waits for a child: none may wait for a lock that nothing will release.
    cache = ours(settings, tmp_path, shards=2, database_timeout=1000)
    cache.set("counter", 0, timeout=None)
    assert _use(cache, 0)
    _idle_thread(lambda: cache.get_many([f"key-{n}" for n in range(20)]))
    children = []
    for number in range(1, 6):
        children.append(in_child_of_c(functools.partial(_compute, cache, number)))
        assert _use(cache, 100 + number)
    assert [end_of(pid) for pid in children] == [0] * 5
    assert cache.get("counter") == 20 * 11


@in_own_process
def test_a_child_of_c_leaves_the_locks_of_its_parent_alone(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, shards=1)
    lock = cache.lock("lock")
    assert lock.acquire()
    before = _posix_locks()
    assert before

    def work() -> bool:
        return not cache.lock("lock").acquire(blocking=False) and cache.get("key") is None

    assert end_of(in_child_of_c(work)) == 0
    assert _posix_locks() == before
    assert lock.owned()
    lock.release()


def _posix_locks() -> set[str]:
    """Return the locks that the kernel holds for this process."""
    lines = Path("/proc/locks").read_text().splitlines()
    found = [line.split() for line in lines]
    return {" ".join(line[1:]) for line in found if line[4] == str(os.getpid())}


@in_own_process
def test_the_counts_of_a_child_of_c_are_its_own(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path, shards=1)
    cache.set("key", 1)
    before = cache.stats()["hits"]

    def work() -> bool:
        cache.get("key")
        return cache._counters.own()["hits"] == 1  # noqa: SLF001 (the row has no API)

    assert end_of(in_child_of_c(work)) == 0
    assert cache._counters.own()["hits"] == 0  # noqa: SLF001
    assert cache.stats()["hits"] == before + 1


@in_own_process
def test_a_child_is_refused_at_once_if_its_parent_was_using_sqlite(
    settings: Settings, tmp_path: Path
) -> None:
    # `end_of` waits for less than the thread of the parent does.
    cache = ours(settings, tmp_path, shards=1, database_timeout=1000)
    cache.set("key", 0)
    other = sqlite3.connect(databases(tmp_path)[0], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: cache.incr("key"))
    thread.start()
    registry = cache._store._database.registry  # noqa: SLF001 (when is it inside?)

    def is_inside() -> bool:
        for found in registry._all:  # noqa: SLF001
            if not found.lock.acquire(blocking=False):
                return True
            found.lock.release()
        return False

    until(lambda: is_inside() and is_asleep(thread), "the thread to wait")

    def work() -> bool:
        with pytest.raises(StoreUnavailable, match="was forked while another thread"):
            cache.get("key")
        with pytest.raises(StoreUnavailable, match="nothing was done"), cache.lock("lock"):
            pass
        return True

    assert end_of(in_child_of_c(work)) == 0
    other.execute("ROLLBACK")
    other.close()
    thread.join(30)
    assert cache.get("key") == 1
