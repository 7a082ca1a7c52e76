"""What every shared backend promises, across real processes."""

import os
import signal

import pytest

from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.contract.clients import Clients, calls


def test_every_process_sees_a_set_a_delete_a_touch_and_a_clear(
    cache: SharedCache, clients: Clients
) -> None:
    cache.set("key", "value")
    assert clients.run(work.get, "key", processes=2) == ["value", "value"]
    cache.delete("key")
    assert clients.run(work.get, "key", processes=2) == ["missing", "missing"]
    cache.set("key", "value", timeout=1000)
    cache.touch("key", 0.01)
    until(lambda: cache.get("key") is None, "the key to expire")
    assert clients.run(work.get, "key", processes=2) == ["missing", "missing"]
    cache.set("key", "value")
    cache.clear()
    assert clients.run(work.get, "key", processes=2) == ["missing", "missing"]


@pytest.mark.parametrize("delta", [1, 2**40, 0.5], ids=["one", "beyond 64 bits soon", "float"])
def test_no_increment_is_lost_and_no_two_results_are_equal(
    cache: SharedCache, clients: Clients, delta: float
) -> None:
    start = 2**63 - 2**42 if delta == 2**40 else 0
    cache.set("counter", start, timeout=100_000)  # a busy machine takes minutes
    answers = clients.run(work.incr, "counter", 100, delta, processes=4, threads=2)
    flat = sorted(answer for each in answers for answer in each)
    assert flat == [start + delta * n for n in range(1, 801)]
    assert cache.get("counter") == start + 800 * delta
    assert 90_000 < (cache.ttl("counter") or 0) <= 100_000


def test_aincr_loses_nothing_and_keeps_the_deadline(cache: SharedCache, clients: Clients) -> None:
    cache.set("counter", 0, timeout=100_000)
    answers = clients.run(work.aincr, "counter", 200, processes=4)
    assert sorted(answer for each in answers for answer in each) == list(range(1, 801))
    assert cache.get("counter") == 800
    assert 90_000 < (cache.ttl("counter") or 0) <= 100_000


@pytest.mark.parametrize("adds", [work.add_all, work.aadd_all], ids=["add", "aadd"])
def test_exactly_one_add_wins(cache: SharedCache, clients: Clients, adds: work.Work) -> None:
    keys = [f"key-{n}" for n in range(100)]
    for key in keys[:50]:
        cache.set(key, "expired", timeout=0.01)
    until(lambda: not cache.get_many(keys), "the keys to expire")
    won = clients.run(adds, keys, processes=4, threads=2)
    assert sorted(key for each in won for key in each) == sorted(keys)


def test_incr_version_is_a_move_with_one_winner(cache: SharedCache, clients: Clients) -> None:
    keys = [f"key-{n}" for n in range(100)]
    cache.set_many(dict.fromkeys(keys, "x" * 50))
    running = clients.start(
        [
            calls(work.move_all, keys),
            calls(work.move_all, keys),
            calls(work.watch_moves, keys),
            calls(work.watch_moves, keys),
        ]
    )
    first, second, *wrong = running.results()
    assert sorted(first + second) == sorted(keys)
    assert wrong == [[], []]


def test_values_of_mixed_size_are_never_torn_nor_missing_while_overwritten(
    cache: SharedCache, clients: Clients
) -> None:
    keys = [f"key-{n}" for n in range(4)]
    sizes = [10, 1000, 33_000, 100_000]
    for key in keys:
        cache.set(key, work.checked(50_000, 1))
    running = clients.start(
        [calls(work.overwrite, keys, sizes, 300)] * 2 + [calls(work.read_checked, keys, 1500)] * 2
    )
    assert running.results() == [300, 300, [], []]


def test_nothing_is_served_after_its_deadline(cache: SharedCache, clients: Clients) -> None:
    late = clients.run(work.watch_expiry, "key", 10, processes=4)
    assert late == [[], [], [], []]


def test_eight_processes_may_use_the_cache_first(cache: SharedCache, clients: Clients) -> None:
    assert clients.run(work.first_use, "key", processes=8, threads=2) == [True] * 16


def test_a_process_killed_at_any_instant_harms_no_other(
    cache: SharedCache, clients: Clients
) -> None:
    keys = [f"key-{n}" for n in range(4)]
    cache.set_many({key: work.checked(100, 1) for key in keys})
    cache.set("kill-counter", 0)
    for _ in range(5):
        before = cache.get("kill-counter")
        running = clients.start([calls(work.overwrite_for_ever, keys, [10, 50_000])] * 2)
        until(lambda: cache.get("kill-counter") > before + 1, "the writers to write")  # noqa: B023
        for process in running.processes:
            os.kill(process.pid, signal.SIGKILL)
        assert running.results() == []
        assert all(work.is_whole(cache.get(key)) for key in keys)
        cache.set("after", 1)
        assert cache.incr("after") == 2
        assert work.read_checked(cache, keys, 100) == []


def test_a_fork_in_the_middle_of_operations_harms_neither_side(
    cache: SharedCache, clients: Clients
) -> None:
    cache.set("busy", 0)
    codes = clients.run(work.fork_while_busy, 15, processes=2)
    assert codes == [[0] * 15] * 2
    assert cache.incr("busy") > 1
