"""django-redis's methods and arguments: each does the same on all backends, or raises a useful error."""

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cacheapp import clock
from cacheapp.backends import RedisCache
from cacheapp.backends.core.locks import Lock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import LockLost
from cacheapp.processes.waiting import pause, until
from tests.contract.conftest import Build

DEADLINE_S = 60


def _of(found: int | None, timeout: int) -> bool:
    """Return True if that is the TTL of an entry stored a moment ago, on however busy a machine."""
    return found is not None and max(0, timeout - DEADLINE_S) < found <= timeout


# -- set(nx=, xx=) ----------------------------------------------------------------------------


def test_set_nx_stores_only_if_the_key_is_missing(cache: SharedCache) -> None:
    assert cache.set("key", "first", 100, nx=True) is True
    assert cache.set("key", "second", 5, nx=True) is False
    assert cache.get("key") == "first"
    assert _of(cache.ttl("key"), 100)


def test_set_xx_stores_only_if_the_key_exists(cache: SharedCache) -> None:
    assert cache.set("key", "first", xx=True) is False
    assert cache.get("key") is None
    cache.set("key", "first", 3600)
    assert cache.set("key", "second", 100, xx=True) is True
    assert cache.get("key") == "second"
    assert _of(cache.ttl("key"), 100)
    cache.set("number", 1)
    assert cache.set("number", 2, None, xx=True) is True
    assert (cache.incr("number"), cache.ttl("number")) == (3, None)


def test_set_xx_writes_no_entry_past_its_deadline(cache: SharedCache) -> None:
    cache.set("key", "old", 0.05, stale=600)
    until(lambda: not cache.has_key("key"), "the deadline", DEADLINE_S)
    assert cache.set("key", "new", xx=True) is False
    assert cache.get("key") is None


def test_set_xx_during_a_computation_finds_no_entry(cache: SharedCache) -> None:
    def compute() -> int:
        assert cache.set("key", 2, xx=True) is False
        return 1

    assert cache.get_or_set("key", compute) == 1


def test_a_conditional_set_without_lifetime_stores_nothing(cache: SharedCache) -> None:
    assert cache.set("key", 1, 0, nx=True) is True
    assert cache.get("key") is None
    cache.set("key", 1)
    assert cache.set("key", 2, 0, nx=True) is False
    assert cache.set("key", 2, 0, xx=True) is True
    assert cache.get("key") is None


def test_nx_and_xx_together_are_refused(cache: SharedCache) -> None:
    with pytest.raises(ValueError, match="expected one of them"):
        cache.set("key", 1, nx=True, xx=True)


async def test_the_async_set_takes_the_conditions(cache: SharedCache) -> None:
    assert await cache.aset("key", 1, xx=True) is False
    assert await cache.aset("key", 1, nx=True) is True
    assert await cache.aset("key", 2, xx=True) is True
    assert await cache.aget("key") == 2
    assert await cache.aset("key", 3) is None


def test_what_django_documents_is_returned(cache: SharedCache) -> None:
    assert cache.set("key", 1) is None
    assert cache.delete_many(["key"]) is None  # type: ignore[func-returns-value]


# -- lifetimes --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1, 25, 3600, 10**7])
def test_a_ttl_is_rounded_up(cache: SharedCache, timeout: int) -> None:
    def rounded_up() -> bool:
        began_s = clock.monotonic_s()
        cache.set("key", 1, timeout)
        found, precisely_ms = cache.ttl("key"), cache.pttl("key")
        if clock.monotonic_s() - began_s > 0.9:
            return False  # this machine was too slow
        assert found == timeout
        assert timeout * 1000 - 900 < (precisely_ms or 0) <= timeout * 1000
        return True

    until(rounded_up, "the TTL in time", DEADLINE_S)


def test_only_a_missing_key_has_a_ttl_of_zero(cache: SharedCache) -> None:
    cache.set("key", 1, 0.3)
    assert cache.ttl("key") in {0, 1}
    until(lambda: cache.ttl("key") == 0, "the deadline", DEADLINE_S)
    assert cache.get("key") is None
    assert cache.pttl("key") == 0


@pytest.mark.parametrize("method", ["expire", "pexpire"])
def test_a_lifetime_may_be_a_timedelta(cache: SharedCache, method: str) -> None:
    cache.set("key", 1)
    assert getattr(cache, method)("key", dt.timedelta(minutes=2)) is True
    assert _of(cache.ttl("key"), 120)


@pytest.mark.parametrize("method", ["expire", "pexpire"])
def test_the_default_and_no_timeout_are_lifetimes_too(build: Build, method: str) -> None:
    cache = build("other", TIMEOUT=77)
    cache.set("key", 1, None)
    assert getattr(cache, method)("key", DEFAULT_TIMEOUT) is True
    assert _of(cache.ttl("key"), 77)
    assert getattr(cache, method)("key", None) is True
    assert cache.ttl("key") is None


def test_timeout_and_version_may_be_digits_as_in_djangos_own_backends(build: Build) -> None:
    cache = build("digits", TIMEOUT="40", VERSION="2")
    cache.set("key", "value")
    assert _of(cache.ttl("key"), 40)
    assert cache.get("key", version=2) == "value"
    assert cache.incr_version("key") == 3
    assert cache.get("key", version=3) == "value"


# -- other arguments of django-redis ----------------------------------------------------------


@pytest.mark.parametrize("method", ["ttl", "keys", "persist", "delete_pattern", "lock"])
def test_a_client_of_ones_own_is_refused_by_name(cache: SharedCache, method: str) -> None:
    getattr(cache, method)("key", client=None)  # as if it were not given
    with pytest.raises(TypeError, match=rf"{method}\(\) does not support 'client'.*get_redis_conn"):
        getattr(cache, method)("key", client=object())


def test_iter_keys_takes_itersize_second_as_in_django_redis(cache: SharedCache) -> None:
    cache.set_many({f"key{number}": number for number in range(5)})
    cache.set("old", 1, version=7)
    assert sorted(cache.iter_keys("key*", 2)) == [f"key{number}" for number in range(5)]
    assert list(cache.iter_keys("*", itersize=None, version=7)) == ["old"]
    with pytest.raises(TypeError, match="'client'"):
        list(cache.iter_keys("*", client=object()))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="use an alias with the other KEY_PREFIX"):
        cache.delete_pattern("*", prefix="other")  # type: ignore[call-arg]
    assert cache.delete_pattern("key*", itersize=2) == 5


# -- locks ------------------------------------------------------------------------------------


def test_a_lock_that_does_not_block_does_not_wait(cache: SharedCache) -> None:
    with cache.lock("lock", timeout=100):
        assert cache.lock("lock", blocking=False).acquire() is False
        with (
            pytest.raises(TimeoutError, match="is held, and it is not waited for"),
            cache.lock("lock", blocking=False),
        ):
            pytest.fail("two hold it")


def test_acquire_takes_its_own_times(cache: SharedCache) -> None:
    with cache.lock("lock", timeout=100):
        other = cache.lock("lock", blocking=False)
        assert other.acquire(sleep=0.01, blocking=True, blocking_timeout=0.05) is False
        with pytest.raises(ValueError, match="blocking_timeout is 0; expected None or seconds"):
            other.acquire(blocking=True, blocking_timeout=0)
    assert other.acquire()
    other.release()


def test_sleep_is_the_time_between_two_attempts(cache: SharedCache) -> None:
    held = cache.lock("lock", timeout=100)
    assert held.acquire()
    waiting = cache.lock("lock", sleep=0.01)
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(waiting.acquire()), daemon=True)
    waiter.start()
    held.release()
    waiter.join(DEADLINE_S)
    assert got == [True]
    waiting.release()


def test_locked_is_true_for_every_holder(cache: SharedCache) -> None:
    lock, other = cache.lock("lock", timeout=100), cache.lock("lock")
    assert (lock.locked(), other.locked()) == (False, False)
    with lock:
        assert (lock.locked(), other.locked()) == (True, True)
        assert (lock.owned(), other.owned()) == (True, False)
    assert other.locked() is False


def _kept(cache: SharedCache, timeout: float, keep: Callable[[Lock], bool]) -> Lock:
    """Return a lock that was acquired, and kept before its time was over."""

    def kept() -> Lock | None:
        lock: Lock = cache.lock("lock", timeout=timeout)
        assert lock.acquire()
        try:
            assert keep(lock) is True
        except LockLost:
            return None  # this machine was too slow
        return lock

    found = until(kept, "a lock that was kept in time", DEADLINE_S)
    assert found is not None
    return found


def test_extend_adds_to_the_time_left_or_replaces_it(cache: SharedCache) -> None:
    lock = _kept(cache, 0.4, lambda lock: lock.extend(100))
    pause(0.5)
    assert lock.owned()
    assert lock.extend(0.2, replace_ttl=True) is True
    until(lambda: not lock.owned(), "the end of the lock", DEADLINE_S)
    with pytest.raises(LockLost, match="was not extended"):
        lock.extend(5)


def test_reacquire_restarts_the_timeout(cache: SharedCache) -> None:
    lock = cache.lock("lock", timeout=100)
    with pytest.raises(LockLost):
        lock.reacquire()
    lock = _kept(cache, 100, lambda lock: lock.extend(0.5, replace_ttl=True) and lock.reacquire())
    pause(0.6)
    assert lock.owned()
    lock.release()


def test_a_lock_without_a_timeout_has_none_to_extend(cache: SharedCache) -> None:
    with cache.lock("lock") as lock:
        with pytest.raises(ValueError, match="has no timeout to extend"):
            lock.extend(5)
        assert lock.extend() is True


def test_a_lock_takes_the_arguments_of_django_redis_in_their_order(cache: SharedCache) -> None:
    with cache.lock("lock", 2, 100, 0.1):
        assert cache.lock("lock", version=2).locked()
        assert not cache.lock("lock").locked()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"thread_local": True}, "create one with cache.lock"),
        ({"sleep": 0}, "sleep is 0; expected"),
    ],
    ids=["thread_local", "sleep"],
)
def test_options_of_a_lock_that_cannot_be_kept_are_refused(
    cache: SharedCache, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cache.lock("lock", **wrong)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("memoize", "cacheapp.cached.cached"),
        ("pop", "two steps"),
        ("cull", "evicted whenever space is needed"),
        ("expireat", r"use expire_at\(\)"),
    ],
)
def test_a_method_of_another_cache_names_what_replaces_it(
    cache: SharedCache, name: str, instead: str
) -> None:
    assert not hasattr(cache, name)
    with pytest.raises(AttributeError, match=instead):
        getattr(cache, name)


# -- what only a server can do ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["sadd", "hset", "zadd", "asmembers"])
def test_collections_work_on_redis_and_are_refused_elsewhere(
    cache: SharedCache, method: str
) -> None:
    if isinstance(cache, RedisCache):
        assert callable(getattr(cache, method))
        return
    with pytest.raises(AttributeError, match="need a Redis server; use a RedisCache"):
        getattr(cache, method)
    for name in ("client", "get_client"):
        with pytest.raises(AttributeError, match="no server; use the methods of the cache, or a"):
            getattr(cache, name)
    assert not hasattr(cache, "no_such_method")
