import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import django
import django_redis.cache
import pytest

from cacheapp import clock
from cacheapp.backends import RedisCache
from cacheapp.backends.redis import encoding
from cacheapp.errors import StoreUnavailable, ValueRefused
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import ours, raw, sent


@pytest.fixture
def own_redis(redis_server: RedisServer) -> RedisServer:
    """The Redis of the whole test run, emptied."""
    with raw(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def cache(own_redis: RedisServer) -> RedisCache:
    return ours(own_redis.url)


@pytest.fixture
def stock(own_redis: RedisServer) -> Any:
    return django_redis.cache.RedisCache(own_redis.url, {"KEY_PREFIX": "stock"})


@pytest.mark.parametrize(
    ("work", "commands"),
    [
        (lambda cache: cache.get("key"), ["GET"]),
        (lambda cache: cache.get("absent"), ["GET"]),
        (lambda cache: cache.set("key", "x"), ["SET"]),
        (lambda cache: cache.set("key", "x", None), ["SET"]),
        (lambda cache: cache.set("key", "x", 0), ["EVALSHA"]),
        (lambda cache: cache.add("key", "x"), ["EVALSHA"]),
        (lambda cache: cache.delete("key"), ["EVALSHA"]),
        (lambda cache: cache.has_key("key"), ["EVALSHA"]),
        (lambda cache: cache.touch("key", 5), ["EVALSHA"]),
        (lambda cache: cache.touch("key", None), ["EVALSHA"]),
        (lambda cache: cache.persist("key"), ["EVALSHA"]),
        (lambda cache: cache.ttl("key"), ["EVALSHA"]),
        (lambda cache: cache.incr("count"), ["EVALSHA"]),
        (lambda cache: cache.incr("huge"), ["EVALSHA", "EVALSHA"]),
        (lambda cache: cache.incr("count", 2**70), ["EVALSHA", "EVALSHA"]),
        (lambda cache: cache.incr_version("key"), ["GET", "EVALSHA"]),
        (lambda cache: cache.get_or_set("key", "x"), ["GET"]),
        (lambda cache: cache.get_or_set("absent", "x", 0), ["GET", "EVALSHA", "EVALSHA"]),
        (lambda cache: cache.keys("k*"), ["SCAN", "EVALSHA"]),
        (lambda cache: cache.get_many([f"k{n}" for n in range(100)]), ["MGET"]),
        (lambda cache: cache.set_many({f"k{n}": n for n in range(100)}), ["MSETEX"]),
        (lambda cache: cache.delete_many([f"k{n}" for n in range(100)]), ["EVALSHA"]),
    ],
)
def test_an_operation_is_one_round_trip_and_two_where_it_must_be(
    own_redis: RedisServer, cache: RedisCache, work: Callable[[Any], Any], commands: list[str]
) -> None:
    cache.set_many({"key": "value", "count": 1, "huge": 2**70})
    work(cache)  # loads the scripts
    cache.set_many({"key": "value", "count": 1, "huge": 2**70})
    if commands == ["MSETEX"]:
        commands = [way_to_set_many(own_redis)]
    assert sent(own_redis, lambda: work(cache)) == commands


def way_to_set_many(server: RedisServer) -> str:
    """Return the command by which a cache stores many entries in this server."""
    with raw(server) as client:
        return "MSETEX" if "msetex" in client.command() else "EVALSHA"


def test_a_user_without_the_right_to_msetex_stores_many_by_a_script(own_redis: RedisServer) -> None:
    withheld = ["-msetex"] if way_to_set_many(own_redis) == "MSETEX" else []  # Redis 7 has none
    with raw(own_redis) as client:
        client.execute_command("ACL", "SETUSER", "old", "on", ">pw", "~*", "+@all", *withheld)
    cache = ours(own_redis.url, USERNAME="old", PASSWORD="pw")  # noqa: S106 (of this test)
    for _ in range(2):
        assert cache.set_many({"a": 1, "b": 2}, None) == []
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    assert cache.ttl("a") is None


def test_a_script_that_redis_has_forgotten_is_sent_again(
    own_redis: RedisServer, cache: RedisCache
) -> None:
    cache.set("count", 1)
    cache.incr("count")
    with raw(own_redis) as client:
        client.script_flush()
    assert sent(own_redis, lambda: cache.incr("count")) == ["EVALSHA", "EVAL"]
    assert cache.get("count") == 3


@pytest.mark.parametrize("start", [0, 2**53 - 1, 2**53 + 1, -(2**53) - 1, 2**63 - 3, 2**63 - 2])
def test_every_sum_is_exact(cache: RedisCache, start: int) -> None:
    cache.set("count", start, 100)
    assert [cache.incr("count"), cache.incr("count"), cache.decr("count", 5)] == [
        start + 1,
        start + 2,
        start - 3,
    ]
    assert cache.get("count") == start - 3
    left = cache.pttl("count")
    assert left is not None
    assert 90_000 < left <= 100_000


def test_stock_returns_a_wrong_sum_beyond_two_to_the_53(stock: Any) -> None:
    stock.set("count", 2**53)
    assert stock.incr("count") != 2**53 + 1


def add_in_threads(cache: Any, key: str, delta: float) -> None:
    def work() -> None:
        barrier.wait(60)
        for _ in range(100):
            cache.incr(key, delta)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("start", "delta"), [(2**70, 1), (0.0, 0.5)], ids=["huge", "float"])
def test_no_increment_is_lost_beyond_what_redis_counts(
    cache: RedisCache, stock: Any, start: float, delta: float
) -> None:
    for under_test in (cache, stock):
        under_test.set("count", start, 100)
        add_in_threads(under_test, "count", delta)
    assert cache.get("count") == start + 400 * delta
    assert stock.get("count") < start + 400 * delta  # get, then set: most are lost


def test_stock_deletes_a_float_near_its_deadline_instead_of_counting(
    own_redis: RedisServer, stock: Any
) -> None:
    def deleted() -> bool:
        began_s = clock.monotonic_s()
        stock.set("count", 0.5, 0.4)  # which its `ttl()`, in whole seconds, calls 0
        with contextlib.suppress(ValueError, TypeError):  # expired: too slow to show anything
            stock.incr("count", 0.25)
        with raw(own_redis) as client:
            return not client.exists("stock:1:count") and clock.monotonic_s() < began_s + 0.4

    until(deleted, "stock to delete what it was to count")


def test_a_float_near_its_deadline_is_counted_and_keeps_it(cache: RedisCache) -> None:
    def counted() -> bool:
        cache.set("count", 0.5, 0.9)
        try:
            assert cache.incr("count", 0.25) == 0.75  # type: ignore[arg-type]
        except ValueError:
            return False  # expired: this machine was too slow
        left = cache.pttl("count")
        assert left is not None
        assert left <= 900
        return left > 0

    until(counted, "the sum")


async def count_in_tasks(cache: Any) -> None:
    async def work() -> None:
        for _ in range(25):
            await cache.aincr("count")

    await cache.aset("count", 0, 100_000)
    await asyncio.gather(*(work() for _ in range(8)))


async def test_aincr_loses_nothing_and_keeps_the_deadline_where_stock_does_not(
    cache: RedisCache, stock: Any
) -> None:
    await count_in_tasks(cache)
    assert await cache.aget("count") == 200
    left = cache.ttl("count")
    assert left is not None
    assert left > 90_000
    await count_in_tasks(stock)
    right = await stock.aget("count") == 200 and stock.ttl("count") > 90_000
    assert right == (django.VERSION >= (6, 1)), "from there on, Django's aincr calls incr"


def versions_seen(server: RedisServer, cache: Any, prefix: str) -> set[int]:
    """Move a value back and forth; return in how many versions a reader saw it at once."""
    cache.set("moved", "value", 1000)
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        with raw(server) as client:
            keys = [f"{prefix}:1:moved", f"{prefix}:2:moved"]
            while not done.is_set():
                seen.add(sum(value is not None for value in client.mget(keys)))

    reader = threading.Thread(target=look)
    reader.start()
    until(lambda: seen, "the first look")
    for _ in range(200):
        cache.incr_version("moved")
        cache.decr_version("moved", version=2)
    done.set()
    reader.join()
    return seen


def test_a_moved_value_is_never_in_both_versions_nor_in_neither(
    own_redis: RedisServer, cache: RedisCache, stock: Any
) -> None:
    assert versions_seen(own_redis, cache, "ours") == {1}
    seen_in_steps = lambda: versions_seen(own_redis, stock, "stock") != {1}  # noqa: E731
    until(seen_in_steps, "a reader to see a set and no delete yet", 100)


@pytest.mark.parametrize("timeout", [None, 100, 20.5], ids=repr)
def test_a_move_keeps_the_deadline(cache: RedisCache, timeout: float | None) -> None:
    cache.set("key", "value", timeout)
    cache.incr_version("key")
    left = cache.pttl("key", version=2)
    if timeout is None:
        assert left is None
    else:
        assert left is not None
        assert 0 < left <= timeout * 1000


@pytest.mark.parametrize("timeout", [1e-9, 0.0001, 0.001, 0.0019])
def test_a_tiny_timeout_is_rounded_up_to_the_shortest_of_redis(
    own_redis: RedisServer, cache: RedisCache, timeout: float
) -> None:
    assert sent(own_redis, lambda: cache.set("key", "value", timeout)) == ["SET"]


@pytest.mark.parametrize("timeout", [1e12, 1e300, float("inf")])
def test_a_huge_timeout_is_kept_as_long_as_redis_can(cache: RedisCache, timeout: float) -> None:
    cache.set("key", "value", timeout)
    cache.set_many({"many": "value"}, timeout)
    assert cache.touch("key", timeout)
    assert cache.get_many(["key", "many"]) == {"key": "value", "many": "value"}


@pytest.mark.parametrize("foreign", [b"", b"007", b"+1", b"1_0", b" 1", b"-", b"-0", b"1" * 5000])
def test_a_value_that_only_looks_like_a_number_is_rejected(
    own_redis: RedisServer, cache: RedisCache, foreign: bytes
) -> None:
    with raw(own_redis) as client:
        client.set("ours:1:key", foreign)
        assert cache.get("key", "default") == "default"
        assert client.exists("ours:1:key") == 0  # it was removed, and the key works again
    assert cache.add("key", 1)
    assert cache.incr("key") == 2


def test_an_integer_of_thousands_of_digits_is_refused(cache: RedisCache) -> None:
    with pytest.raises(ValueRefused, match="in decimal"):
        cache.set("key", 10**5000)
    assert cache.get("key") is None


def test_a_value_larger_than_redis_takes_is_refused_before_anything_is_sent() -> None:
    largest = bytes(512 * 2**20)  # zeros that are never touched take no memory
    assert encoding.encode_payload(largest) is largest
    with pytest.raises(ValueRefused, match="Redis accepts values of at most 536870912 bytes"):
        encoding.encode_payload(bytes(512 * 2**20 + 1))


def test_a_key_that_holds_another_type_is_an_error_that_names_it(
    own_redis: RedisServer, cache: RedisCache
) -> None:
    with raw(own_redis) as client:
        client.rpush("ours:1:key", "item")
        for work in (cache.get, cache.incr, cache.incr_version):
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                work("key")
        assert client.lrange("ours:1:key", 0, -1) == [b"item"]
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_every_text_can_be_a_key(cache: RedisCache) -> None:
    for key in ("ключ", "\ud800", "*", "a\\b"):
        cache.set(key, key)
        assert cache.get(key) == key
        assert cache.keys("*") == [key]
        cache.delete(key)


def test_thousands_of_keys_go_in_parts(own_redis: RedisServer, cache: RedisCache) -> None:
    data = {f"key-{n}": n for n in range(2500)}
    cache.delete("key")  # loads the scripts
    way = way_to_set_many(own_redis)
    assert sent(own_redis, lambda: cache.set_many(data)).count(way) == 3
    large = {f"large-{n}": os.urandom(6 * 2**20) for n in range(5)}
    with raw(own_redis) as client:
        before = client.info("commandstats")[f"cmdstat_{way.lower()}"]["calls"]
        cache.set_many(large)
        assert client.info("commandstats")[f"cmdstat_{way.lower()}"]["calls"] == before + 3
    assert cache.get_many(large) == large
    assert cache.get_many(data) == data
    assert sent(own_redis, lambda: cache.delete_many(data)) == ["EVALSHA"] * 3
    assert cache.get_many(data) == {}
