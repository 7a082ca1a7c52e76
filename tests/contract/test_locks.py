"""What every shared backend promises of its locks, across real processes."""

import asyncio
import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.backends.core.locks import Lock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import LockLost
from cacheapp.processes.waiting import pause, until
from tests.contract import lock_work
from tests.contract.backends import Entry
from tests.contract.clients import Clients, calls
from tests.contract.conftest import Build
from tests.contract.renewals import renewals

DEADLINE_S = 60
LEASE_S = 5.0
short_lease = pytest.mark.parametrize("lease_s", [LEASE_S], ids=["short lease"])
"""For tests that wait for the end of a lock without a timeout, as of a dead holder on Redis."""


@pytest.fixture
def lease_s() -> float:
    return 100.0  # no busy machine comes to it


@pytest.fixture
def entry(entry: Entry, lease_s: float) -> Entry:
    return {**entry, "OPTIONS": {**entry.get("OPTIONS", {}), "lease_time": lease_s}}


def test_one_holder_at_a_time_and_each_with_a_larger_token(
    cache: SharedCache, clients: Clients, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch()
    done = clients.run(lock_work.count_under_lock, "lock", str(tokens), 12, processes=4, threads=2)
    assert done == [12] * 8
    found = [int(line) for line in tokens.read_text().splitlines()]
    assert len(found) == 96
    assert all(earlier < later for earlier, later in itertools.pairwise(found))


def test_a_lock_is_held_by_one_object_and_free_after_its_release(cache: SharedCache) -> None:
    first, second = cache.lock("lock"), cache.lock("lock")
    assert first.token is None
    assert first.acquire()
    assert (first.owned(), second.owned()) == (True, False)
    assert not second.acquire(blocking=False)
    with pytest.raises(RuntimeError, match="already held by this object"):
        first.acquire()
    first.extend()
    first.release()
    assert (first.owned(), first.token) == (False, None)
    assert second.acquire(blocking=False)
    second.release()


def test_a_blocked_acquire_gets_the_lock_when_it_is_released(cache: SharedCache) -> None:
    held = cache.lock("lock")
    assert held.acquire()
    got: list[bool] = []
    wanted = cache.lock("lock")
    waiter = threading.Thread(target=lambda: got.append(wanted.acquire()))
    waiter.start()
    held.release()
    waiter.join(DEADLINE_S)
    assert got == [True]
    wanted.release()


def _token(cache: SharedCache) -> int:
    with cache.lock("lock") as lock:
        assert lock.token is not None
        return lock.token


def test_tokens_grow_despite_clear_and_restart(cache: SharedCache, build: Build) -> None:
    tokens = [_token(cache), _token(cache)]
    cache.clear()
    tokens.append(_token(cache))
    cache.delete_pattern("*")
    tokens.append(_token(cache))
    cache._store.close()  # noqa: SLF001 (as at the end of a process)
    tokens.append(_token(build("again")))
    overdue = cache.lock("lock", timeout=0.05)
    assert overdue.acquire()
    tokens += [overdue.token or 0, _token(cache)]
    assert all(earlier < later for earlier, later in itertools.pairwise(tokens))


def test_clear_frees_no_lock_and_lists_none(cache: SharedCache) -> None:
    with cache.lock("lock") as lock:
        cache.set("lock", "a key of this name is something else")
        assert cache.get("lock") == "a key of this name is something else"
        assert cache.keys("*") == ["lock"]
        cache.clear()
        assert cache.keys("*") == []
        assert lock.owned()
        assert not cache.lock("lock").acquire(blocking=False)
        assert "lock" not in cache


def _taken_from_the_dead(cache: SharedCache) -> Lock:
    lock = cache.lock("lock", blocking_timeout=DEADLINE_S)
    assert lock.acquire()
    assert (lock.token or 0) > cache.get("held")
    return lock


@short_lease
@pytest.mark.parametrize("clients", ["fork"], indirect=True)
def test_the_lock_of_a_killed_holder_is_free(cache: SharedCache, clients: Clients) -> None:
    running = clients.start([calls(lock_work.hold_for_ever, "lock")])
    until(lambda: cache.get("held"), "the lock to be held", DEADLINE_S)
    assert not cache.lock("lock").acquire(blocking=False)
    running.processes[0].kill()
    _taken_from_the_dead(cache).release()
    assert running.results() == []


@short_lease
@pytest.mark.parametrize("clients", ["fork"], indirect=True)
def test_the_lock_of_a_killed_parent_is_free_though_its_child_lives(
    cache: SharedCache, clients: Clients
) -> None:
    running = clients.start([calls(lock_work.hold_and_fork, "lock")])
    until(lambda: cache.get("held"), "the lock to be held", DEADLINE_S)
    child: int = cache.get("child")
    try:
        assert not cache.lock("lock").acquire(blocking=False)
        running.processes[0].kill()
        _taken_from_the_dead(cache).release()
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        running.stop()


def _in_child(lock: Lock) -> str:
    """Return what a forked child finds when it uses the parent's lock."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lock.release()
            os.write(theirs, b"released")
        except LockLost:
            os.write(theirs, b"lost, owned" if lock.owned() else b"lost")
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return found


def test_a_forked_child_cannot_release_its_parents_lock(cache: SharedCache) -> None:
    with cache.lock("lock") as lock:
        assert _in_child(lock) == "lost"
        assert lock.owned()
        assert not cache.lock("lock").acquire(blocking=False)


def test_a_late_holder_changes_nothing_and_gets_an_error(cache: SharedCache) -> None:
    late = cache.lock("lock", timeout=0.1)
    assert late.acquire()
    successor = cache.lock("lock", timeout=1000, blocking_timeout=DEADLINE_S)
    assert successor.acquire()
    assert not late.owned()
    with pytest.raises(LockLost, match="was not extended"):
        late.extend()
    with pytest.raises(LockLost, match="was not released"):
        late.release()
    with pytest.raises(LockLost, match="was not released"):
        late.release()  # it holds nothing now
    assert successor.owned()
    successor.extend()
    successor.release()


def test_a_late_holder_gets_an_error_though_the_lock_is_free(cache: SharedCache) -> None:
    late = cache.lock("lock", timeout=0.05)
    assert late.acquire()
    until(lambda: not late.owned(), "the lock's time to end")
    with pytest.raises(LockLost):
        late.extend()
    with pytest.raises(LockLost):
        late.release()
    assert _token(cache)


def test_extending_restarts_the_timeout(cache: SharedCache) -> None:
    timeout_s = 2.0

    def is_held() -> bool:
        """Return True if a lock was held beyond its time; False if this machine was too slow."""
        lock = cache.lock("lock", timeout=timeout_s)
        assert lock.acquire()
        ends_s = clock.monotonic_s() + timeout_s
        try:
            while clock.monotonic_s() < ends_s + 0.5:
                pause(0.2)
                lock.extend()
            lock.release()
        except LockLost:
            return False
        return True

    until(is_held, "a lock that was extended in time", DEADLINE_S)


def _is_refused(lock: Lock) -> bool:
    """Return True if another one holds it."""
    if not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


@short_lease
def test_without_a_timeout_a_lock_is_held_for_as_long_as_it_takes(cache: SharedCache) -> None:
    def is_held() -> bool:
        """Return True if a lock is held beyond the lease time; False if this machine was too slow."""
        try:
            with renewals(cache) as renewed, cache.lock("lock") as lock:
                if not cache._store.detects_dead_holders:  # noqa: SLF001 (else it has no end)
                    enough = lambda: len(renewed) >= 4 or not lock.owned()  # noqa: E731
                    until(enough, "renewals beyond the lease time", DEADLINE_S)
                return lock.owned() and _is_refused(cache.lock("lock"))
        except LockLost:
            return False

    until(is_held, "a lock that was renewed in time", DEADLINE_S)


def test_a_lock_that_cannot_be_acquired_in_time_raises(cache: SharedCache) -> None:
    with cache.lock("lock"):
        assert not cache.lock("lock", blocking_timeout=0.05).acquire()
        with (
            pytest.raises(TimeoutError, match=r"could not acquire lock .* within 0\.05 s"),
            cache.lock("lock", blocking_timeout=0.05),
        ):
            pytest.fail("two hold it")


def test_an_exception_under_a_lock_releases_it_and_is_not_replaced(cache: SharedCache) -> None:
    with pytest.raises(LookupError), cache.lock("lock"):
        raise LookupError
    overdue = cache.lock("lock", timeout=0.05)

    def fail() -> None:
        until(lambda: not overdue.owned(), "the lock's time to end")
        raise LookupError

    with pytest.raises(LookupError), overdue:
        fail()
    assert _token(cache)


def test_a_lock_whose_time_ended_raises_at_the_end_of_its_block(cache: SharedCache) -> None:
    overdue = cache.lock("lock", timeout=0.05)
    with pytest.raises(LockLost, match="no longer held by this object"), overdue:
        until(lambda: not overdue.owned(), "the lock's time to end")


ODD = ["", " ", "a b", "a:b", "a\0b", "line\nbreak", "*?[a-z]", "naïve ☃", "%d {x}", "x" * 2000]


def test_each_name_is_a_separate_lock(cache: SharedCache, build: Build) -> None:
    locks = [cache.lock(name) for name in ODD]
    locks += [cache.lock("a b", version=2), build("other", KEY_PREFIX="other").lock("a b")]
    for lock in locks:
        assert lock.acquire(blocking=False)
    for name in ODD:
        assert not cache.lock(name).acquire(blocking=False)
    assert all(lock.owned() for lock in locks)
    for lock in locks:
        lock.release()


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_wrong_times_are_refused(cache: SharedCache, wrong: float) -> None:
    with pytest.raises(ValueError, match="expected None or seconds above 0"):
        cache.lock("lock", timeout=wrong)
    with pytest.raises(ValueError, match="expected None or seconds above 0"):
        cache.lock("lock", blocking_timeout=wrong)


# -- the async twin ---------------------------------------------------------------------------


async def test_tasks_exclude_each_other(cache: SharedCache) -> None:
    inside = 0

    async def task() -> int:
        nonlocal inside
        async with cache.lock("lock") as lock:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            assert lock.token is not None
            return lock.token

    async with asyncio.timeout(DEADLINE_S):
        tokens = await asyncio.gather(*(task() for _ in range(8)))
        assert len(set(tokens)) == 8
        async with cache.lock("lock"):
            with pytest.raises(TimeoutError, match="could not acquire lock"):
                await cache.lock("lock", blocking_timeout=0.05).__aenter__()


async def test_a_task_cancelled_while_it_acquires_leaves_no_lock(cache: SharedCache) -> None:
    async def take() -> None:
        async with cache.lock("lock"):
            await asyncio.Event().wait()

    async with asyncio.timeout(4 * DEADLINE_S):
        for turns in range(30):
            task = asyncio.create_task(take())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            lock = cache.lock("lock", blocking_timeout=DEADLINE_S)
            assert await lock.aacquire()
            await lock.arelease()
