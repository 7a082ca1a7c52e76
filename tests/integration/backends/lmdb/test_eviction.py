"""Test LMDBCache with little space, or none."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends import LMDBCache
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.write_retry import _PAUSES_S
from cacheapp.errors import StoreFull
from cacheapp.processes.waiting import until
from tests.contract.clients import calls
from tests.integration.backends.lmdb.parts import (
    MIB,
    environment_of,
    environments,
    forked,
    ours,
    stopped_inside,
)


def _records(env: OpenEnvironment, transaction: Transaction) -> list[int]:
    databases = (env.entries, env.queue, env.deadlines)
    return [transaction.stat(database)["entries"] for database in databases]


def records(cache: LMDBCache) -> list[int]:
    """Return the number of entries, of queue records and of records in the index of deadlines."""
    return environment_of(cache).read(_records)


def _fill(cache: LMDBCache, count: int, size: int) -> int:
    for number in range(count):
        cache.set(f"{os.getpid()}-{number}", b"x" * size, timeout=None)
        cache.get(f"{os.getpid()}-{number // 2}")
    return count


def test_max_entries_is_never_exceeded_under_load_from_several_processes(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, MAX_ENTRIES=100)
    cache.set("first", 1)
    running = forked(settings).start([calls(_fill, 400, 20)] * 3)
    most = 0

    def look() -> bool:
        nonlocal most
        ended = all(pipe.poll() for pipe in running.pipes)  # first: the last look is at the end
        most = max(most, records(cache)[0])
        return ended

    until(look, "the writers to end", 60)
    assert running.results() == [400] * 3
    assert most == 100
    assert records(cache) == [100, 100, 0]
    assert cache.stats()["evictions"] == 1101


def test_evictions_keep_up_with_small_entries_in_a_large_cache(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ours(settings, tmp_path, size_limit=32 * 2**20)
    for number in range(150_000):
        cache.set(hashlib.md5(b"%d" % number).hexdigest(), b"x" * 100, timeout=None)  # noqa: S324
    stats = cache.stats()
    usable = environment_of(cache).limits.usable_bytes
    assert 0.9 * usable < stats["bytes_used"] < 1.05 * usable
    assert stats["entries"] > 40_000
    assert caplog.messages == []


@pytest.mark.parametrize("size", [50_000, 400_000])
def test_large_values_find_space_among_many_small_ones(
    settings: Settings, tmp_path: Path, size: int
) -> None:
    """Whose pages leave no long run of free ones."""
    cache = ours(settings, tmp_path)
    _fill(cache, 40_000, 100)
    for number in range(10):
        cache.set(f"large-{number}", b"x" * size, timeout=None)
        assert cache.get(f"large-{number}") == b"x" * size
        _fill(cache, 2_000, 100)
    assert cache.stats()["sets_rejected"] == 0


def _fill_and_time(cache: LMDBCache, count: int, size: int) -> float:
    """Do the same; return the seconds that the longest read took."""
    longest_s = 0.0
    for number in range(count):
        cache.set(f"{os.getpid()}-{number}", b"x" * size, timeout=None)
        began_s = clock.monotonic_s()
        cache.get(f"{os.getpid()}-{number // 2}")
        longest_s = max(longest_s, clock.monotonic_s() - began_s)
    return longest_s


def test_the_size_limit_is_kept_under_load_from_several_processes(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("first", 1)
    sizes = [100, 3000, 50_000]
    works = [calls(_fill_and_time, 600_000 // size, size) for size in sizes] * 2
    longest_reads_s = forked(settings).start(works).results()
    assert len(longest_reads_s) == 6
    _fill(cache, 2000, 2000)
    stats = cache.stats()
    limits = environment_of(cache).limits
    assert 0.9 * limits.usable_bytes < stats["bytes_used"] < 1.05 * limits.usable_bytes
    assert stats["evictions"] > 1000
    # A process that is suspended inside a read retains pages, and a write waits for a time only.
    assert stats["sets_rejected"] == 0 or max(longest_reads_s) > sum(_PAUSES_S) / 2
    (made,) = environments(tmp_path)
    assert (made / "data.mdb").stat().st_size == limits.map_bytes


def test_expired_entries_are_removed_first(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path, MAX_ENTRIES=100)
    cache.set_many({f"old-{n}": n for n in range(30)}, timeout=None)
    cache.set_many({f"short-{n}": n for n in range(70)}, timeout=50)
    boot_s = clock.boot_s
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 60)
    for number in range(70):
        cache.set(f"new-{number}", 1, timeout=None)
    assert len(cache.get_many([f"old-{n}" for n in range(30)])) == 30
    assert len(cache.get_many([f"new-{n}" for n in range(70)])) == 70
    assert cache.stats()["expirations"] == 70


def test_used_entries_stay_and_entries_used_once_are_evicted(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, MAX_ENTRIES=100)
    used = [f"used-{n}" for n in range(50)]
    cache.set_many(dict.fromkeys(used, 1))
    for number in range(1000):
        cache.set(f"once-{number}", 1)
        cache.get(used[number % 50])
    assert len(cache.get_many(used)) == 50


def test_overwriting_writes_no_index_record_and_an_extended_entry_stays(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path)
    for timeout in (100, 200, 300, 100, None, 250):
        cache.set("key", timeout, timeout=timeout)
        assert records(cache) == [1, 1, 1]
    boot_s = clock.boot_s
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 150)
    cache.set("another", 1, timeout=None)  # the record of the first deadline is due
    assert cache.get("key") == 250
    assert records(cache) == [2, 2, 1]
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 260)
    assert cache.get("key") is None
    cache.set("another", 1, timeout=None)
    assert records(cache) == [1, 1, 0]


@pytest.mark.parametrize("method", ["touch", "set"])
def test_an_earlier_deadline_is_indexed_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "value", timeout=1000)
    if method == "touch":
        cache.touch("key", 10)
    else:
        cache.set("key", "value", timeout=10)
    assert records(cache) == [1, 1, 1]
    boot_s = clock.boot_s
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 11)
    cache.set("another", 1, timeout=None)
    assert records(cache) == [1, 1, 0]


def test_no_operation_leaves_a_record_behind(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    for timeout in (None, 100):
        cache.set("a", 1, timeout=timeout)
        cache.incr("a")
        cache.incr_version("a")
        cache.decr_version("a", version=2)
        cache.get_or_set("b", lambda: 1, timeout)
        cache.touch("b", 50)
        cache.persist("b")
        cache.delete("a")
        cache.delete_many(["b"])
    cache.set_many({"c": 1, "d": 2}, 5)
    cache.delete_pattern("c")
    cache.clear()
    assert records(cache) == [0, 0, 0]


def test_a_value_that_is_too_large_is_not_stored_and_removes_the_older_one(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "old")
    cache.set("key", b"x" * 3 * MIB)
    assert cache.get("key") is None
    assert cache.set_many({"key": b"x" * 3 * MIB, "other": 1}) == ["key", "other"]
    with pytest.raises(StoreFull, match="nothing was stored"):
        cache.add("key", b"x" * 3 * MIB)
    assert cache.stats()["sets_rejected"] == 3
    assert cache.get_or_set("lease", lambda: b"x" * 3 * MIB) == b"x" * 3 * MIB
    assert records(cache) == [0, 0, 0]
    assert caplog.text.count("which were not stored") <= 1


def test_a_stopped_reader_causes_loss_of_entries_but_no_errors(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("first", 1)
    wrong = Counter[str]()
    with stopped_inside(cache, writing=False):
        for number in range(1000):
            key = f"key-{number % 10}"
            cache.set(key, number)
            wrong[key] += cache.get(key) not in {number, None}
    assert not wrong.total()
    assert "a process that is stopped inside a read" in caplog.text
    cache.set("after", 1)
    assert cache.get("after") == 1


def test_pages_that_a_dead_reader_retained_are_reused(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    cache.set("first", 1)
    with stopped_inside(cache, writing=False):
        cache.set("second", 1)
    environment = environment_of(cache).current
    for number in range(2000):
        cache.set(f"key-{number % 10}", b"x" * 2000)
    assert environment_of(cache).current is environment


class Counted:
    """Counts how often it is serialized."""

    times = 0

    def __reduce__(self) -> tuple[type[bytes], tuple[int]]:
        Counted.times += 1
        return bytes, (3,)


def test_a_value_that_does_not_fit_is_serialized_once(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "old")
    Counted.times = 0
    cache.set("key", [Counted(), bytes(cache.stats()["bytes_reserved"])])
    assert Counted.times == 1
    assert cache.get("key", "missing") == "missing"
    assert cache.stats()["sets_rejected"] == 1
