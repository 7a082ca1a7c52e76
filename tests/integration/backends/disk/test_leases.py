"""Leases and locks of DiskCache when holders die, fork, or lose their directory."""

import itertools
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends import DiskCache
from cacheapp.backends.core import lease_format
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.process_identity import UNKNOWN, HolderRegistry
from cacheapp.errors import LockLost, StoreUnavailable
from cacheapp.processes.waiting import until
from tests.contract.clients import Running, calls
from tests.integration.backends.children import in_child
from tests.integration.backends.disk.parts import LARGE, forked, ours, value_files

DEADLINE_S = 60
LEASE_S = 300.0  # no test may wait for so long


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _hold(cache: Any, key: str) -> None:
    def factory() -> str:
        cache.set("holding", os.getpid())
        signal.pause()
        return "never"

    cache.get_or_set(key, factory, 100)


@pytest.fixture
def cache(settings: Settings, tmp_path: Path) -> DiskCache:
    return ours(settings, tmp_path / "cache", lease_time=LEASE_S, lease_wait=LEASE_S)


@pytest.fixture
def holder(cache: DiskCache, settings: Settings) -> Iterator[Running]:
    """A process that is computing the value of `key`."""
    running = forked(settings).start([calls(_hold, "key")])
    try:
        until(lambda: cache.get("holding"), "the factory to run", DEADLINE_S)
        yield running
    finally:
        running.stop()


class _Waiters:
    """Threads that request a key; their results, and the time of the last one."""

    def __init__(self, cache: DiskCache, count: int) -> None:
        before = cache.stats()["lease_waits"]
        self.found: list[str] = []
        self.runs = itertools.count()
        self._cache = cache
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        until(lambda: cache.stats()["lease_waits"] - before == count, "all to wait", DEADLINE_S)

    def _ask(self) -> None:
        self.found.append(self._cache.get_or_set("key", self._compute, 100))

    def _compute(self) -> str:
        next(self.runs)
        return "value"

    def outcome(self) -> list[str]:
        deadline = clock.monotonic_s() + DEADLINE_S
        for thread in self._threads:
            thread.join(deadline - clock.monotonic_s())
        return self.found


def test_a_waiter_takes_over_from_a_killed_holder_at_once(
    cache: DiskCache, holder: Running
) -> None:
    waiters = _Waiters(cache, 4)
    holder.processes[0].kill()
    assert waiters.outcome() == ["value"] * 4
    assert next(waiters.runs) == 1


def test_a_call_after_the_death_of_a_holder_does_not_wait(
    cache: DiskCache, holder: Running
) -> None:
    holder.processes[0].kill()
    holder.processes[0].join()
    before = cache.stats()["lease_waits"]
    assert cache.get_or_set("key", lambda: "value", 100) == "value"
    assert cache.stats()["lease_waits"] == before


def test_a_stopped_holder_does_not_count_as_dead(cache: DiskCache, holder: Running) -> None:
    os.kill(holder.processes[0].pid, signal.SIGSTOP)
    stored = cache._store.get(cache.make_key("key"))  # noqa: SLF001 (leases have no API)
    assert stored is not None
    assert lease_format.is_lease(stored)
    assert not cache._store.is_orphaned(stored)  # noqa: SLF001
    holder.processes[0].kill()
    until(lambda: cache._store.is_orphaned(stored), "its death to be seen")  # noqa: SLF001


def test_a_lease_whose_directory_is_removed_is_void(cache: DiskCache, tmp_path: Path) -> None:
    def factory() -> str:
        shutil.rmtree(tmp_path / "cache")
        cache.close()  # a request ends somewhere in this process
        assert cache.get_or_set("other", lambda: "in the new one", 100) == "in the new one"
        return "old"

    before = cache.stats()["voided_fills"]
    assert cache.get_or_set("key", factory, 100) == "old"
    assert cache.get("key") is None
    assert cache.get("other") == "in the new one"
    assert cache.stats()["voided_fills"] - before == 1
    assert cache.get_or_set("key", lambda: "new", 100) == "new"


def test_after_a_removal_a_killed_holder_is_detected_as_before(
    cache: DiskCache, settings: Settings, tmp_path: Path
) -> None:
    assert cache.get_or_set("key", lambda: "value") == "value"
    for _ in range(2):
        shutil.rmtree(tmp_path / "cache")
        cache.close()
        running = forked(settings).start([calls(_hold, "key")])
        until(lambda: cache.get("holding"), "the factory to run", DEADLINE_S)
        waiters = _Waiters(cache, 2)
        running.processes[0].kill()
        assert waiters.outcome() == ["value"] * 2
        running.stop()


# -- holders -----------------------------------------------------------------------------------


def _holders(path: Path) -> HolderRegistry:
    return HolderRegistry(path, lambda: None)


def test_a_process_is_one_holder_and_lives(tmp_path: Path) -> None:
    holders = _holders(tmp_path / "holders")
    assert holders.own_name() == holders.own_name() == _holders(tmp_path / "holders").own_name()
    assert holders.is_alive(holders.own_name())
    assert holders.is_alive(UNKNOWN)


def test_a_link_to_the_directory_leads_to_the_same_holder(tmp_path: Path) -> None:
    private_directory(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    mine = _holders(tmp_path / "real" / "holders").own_name()
    assert _holders(tmp_path / "link" / "holders").own_name() == mine


def _named_by_child(holders: HolderRegistry) -> tuple[bytes, bytes, int]:
    """Return the holder names of a forked child and of its own child, and the child's exit status."""
    ours_, theirs = os.pipe()

    def work() -> bool:
        child = holders.own_name()
        inner = in_child(lambda: os.write(theirs, holders.own_name()) == len(UNKNOWN))
        fine = _exit_code(inner) == 0 and holders.is_alive(child)
        return os.write(theirs, child) == len(child) and fine

    code = _exit_code(in_child(work))
    os.close(theirs)
    with os.fdopen(ours_, "rb") as answer:
        inner_name, name = answer.read(len(UNKNOWN)), answer.read(len(UNKNOWN))
    return name, inner_name, code


def test_forked_children_are_holders_of_their_own_and_dead_ones_are_detected(
    tmp_path: Path,
) -> None:
    holders = _holders(tmp_path / "holders")
    mine = holders.own_name()
    child, grandchild, code = _named_by_child(holders)
    assert code == 0
    assert len({mine, child, grandchild}) == 3
    assert not holders.is_alive(child)
    assert not holders.is_alive(grandchild)
    assert holders.is_alive(mine)
    assert holders.own_name() == mine


def test_slots_of_the_dead_are_used_again_by_other_names(tmp_path: Path) -> None:
    holders = _holders(tmp_path / "holders")
    holders.own_name()
    names = [_named_by_child(holders)[0] for _ in range(10)]
    assert {int.from_bytes(name[:4], "big") for name in names} == {1}
    assert len(set(names)) == 10
    assert not any(holders.is_alive(name) for name in names)


def test_a_child_sees_its_living_parent(tmp_path: Path) -> None:
    holders = _holders(tmp_path / "holders")
    mine = holders.own_name()
    assert _exit_code(in_child(lambda: holders.is_alive(mine))) == 0


def test_in_another_file_a_process_has_another_name(tmp_path: Path) -> None:
    path = tmp_path / "holders"
    holders = _holders(path)
    before = holders.own_name()
    path.rename(tmp_path / "elsewhere")
    after = holders.own_name()
    assert after != before
    assert holders.is_alive(after)
    assert not holders.is_alive(before)
    (tmp_path / "elsewhere").rename(path)  # the same directory again
    assert holders.own_name() == before
    assert holders.is_alive(before)


def test_without_a_file_a_process_has_no_name_and_no_process_counts_as_dead(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    holders = _holders(tmp_path / "file" / "holders")
    with pytest.raises(StoreUnavailable, match="nothing was done"):
        holders.own_name()
    assert holders.own_name_or_unknown() == UNKNOWN
    assert holders.is_alive(b"\0\0\0\1 no such")


# -- locks ---------------------------------------------------------------------------------------


def test_tokens_grow_though_the_directory_is_removed(cache: DiskCache, tmp_path: Path) -> None:
    tokens = []
    for _ in range(4):
        lock = cache.lock("lock")
        assert lock.acquire()
        tokens.append(lock.token or 0)
        shutil.rmtree(tmp_path / "cache")
        cache.close()
        with pytest.raises(LockLost):
            lock.release()
    assert all(earlier < later for earlier, later in itertools.pairwise(tokens))


def _as_if_the_clock_had_been_ahead(_table: Any, con: Any) -> int:
    """Write tokens that the wall clock will reach only in years; return the largest."""
    ahead = int((clock.wall_s() + 1e8) * 1e6)
    with con.sqlite:
        con.execute("BEGIN IMMEDIATE")
        con.execute("UPDATE Locks SET token = ?", (ahead,))
    return ahead


def _pruned(table: Any, con: Any) -> tuple[int, int]:
    """Remove all rows that may be removed; return how many were, and how many are left."""
    with con.sqlite:
        con.execute("BEGIN IMMEDIATE")
        removed = table.prune(con, clock.wall_s() + 1e9)
    (left,) = con.execute("SELECT count(*) FROM Locks").fetchone()
    return removed, left


def test_tokens_grow_though_rows_are_pruned_and_the_clock_was_set_back(cache: DiskCache) -> None:
    run = cache._store._locks.database.run  # noqa: SLF001 (the stored rows have no API)
    for name in ("a", "b"):
        with cache.lock(name):
            pass
    ahead: int = run(0, _as_if_the_clock_had_been_ahead)
    with cache.lock("held"):
        assert run(0, _pruned) == (2, 1)
        assert not cache.lock("held").acquire(blocking=False)
    with cache.lock("a") as lock:
        assert (lock.token or 0) > ahead
    with cache.lock("never used before") as lock:
        assert (lock.token or 0) > ahead


def test_a_lock_survives_another_number_of_shards(
    cache: DiskCache, settings: Settings, tmp_path: Path
) -> None:
    with cache.lock("lock") as lock:
        other = ours(settings, tmp_path / "cache", shards=2)
        other.set("key", 1)
        assert not other.lock("lock").acquire(blocking=False)
        assert lock.owned()


def test_any_str_names_a_lock(cache: DiskCache) -> None:
    with cache.lock("\ud800"), cache.lock("\udfff"), cache.lock("\0"):
        assert not cache.lock("\ud800").acquire(blocking=False)


# -- entries with a soft deadline ---------------------------------------------------------------


@pytest.mark.parametrize("min_file_size", [0, 2**15], ids=["all in files", "large in files"])
@pytest.mark.parametrize("value", ["x" * LARGE, "x", 7], ids=["large", "small", "int"])
def test_a_soft_deadline_needs_no_look_into_the_file(
    settings: Settings, tmp_path: Path, min_file_size: int, value: Any
) -> None:
    cache = ours(settings, tmp_path, disk_min_file_size=min_file_size, refresh="inline")
    assert cache.get_or_set("key", lambda: value, 500, stale=1000) == value
    files = value_files(tmp_path)
    assert cache.get("key") == value
    assert cache.has_key("key")
    assert 490 < (cache.ttl("key") or 0) <= 500
    assert cache.touch("key", 2000)
    assert 1990 < (cache.ttl("key") or 0) <= 2000
    assert value_files(tmp_path) == files, "the file stays as it is"
    assert cache.get("key") == value
    assert cache.get_or_set("key", lambda: "other") == value
    if value == 7:
        assert cache.incr("key") == 8
    assert cache.delete("key")
    assert value_files(tmp_path) == []


def test_an_old_value_in_a_file_is_replaced_file_and_all(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, refresh="inline")
    cache.get_or_set("key", lambda: "old" * LARGE, 0.05, stale=1000)
    until(lambda: not cache.has_key("key"), "the soft deadline to pass")
    assert len(value_files(tmp_path)) == 1
    new = "new" * LARGE
    assert cache.get_or_set("key", lambda: new, 100, stale=1000) == new
    assert len(value_files(tmp_path)) == 1


@pytest.mark.parametrize("policy", ["least-recently-used", "least-frequently-used"])
def test_a_lease_is_not_culled_by_the_writes_of_others(
    settings: Settings, tmp_path: Path, policy: str
) -> None:
    cache = ours(settings, tmp_path, size_limit=2**20, shards=1, eviction_policy=policy)

    def factory() -> str:
        for n in range(60):
            cache.set(f"key-{n}", os.urandom(10_000), timeout=None)
        return "value"

    assert cache.get_or_set("key", factory, 100) == "value"
    assert cache.get("key") == "value"
