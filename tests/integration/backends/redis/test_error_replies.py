import threading
from collections.abc import Callable

import django_redis.cache
import pytest
import redis.exceptions

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import OPERATIONS, open_the_breaker, ours, raw

# -- error replies of the server -----------------------------------------------------------------


def test_without_memory_writes_raise_store_full_and_reads_succeed(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    own_cache.set_many({"key": "value", "count": 1})
    with raw(own_redis) as client:
        client.config_set("maxmemory", 1)
        for name in ("set", "set_many", "incr", "incr_version"):
            with pytest.raises(StoreFull, match="nothing was stored"):
                OPERATIONS[name](own_cache)
        with pytest.raises(StoreFull):
            own_cache.add("new", 1)
        assert own_cache.get_many(["key", "count", "new"]) == {"key": "value", "count": 1}
        assert own_cache.delete("key")
        client.config_set("maxmemory", 0)
    assert own_cache.incr("count") == 2


def test_if_a_later_batch_is_refused_the_error_says_that_others_were_stored(
    own_redis: RedisServer,
) -> None:
    cache = ours(own_redis.url, SOCKET_TIMEOUT=60)
    cache.set("key", "value")
    with raw(own_redis) as client:
        free = 2**20 * 24  # for one batch of up to 16 MiB, and not for two
        client.config_set("maxmemory", client.info("memory")["used_memory"] + free)
        large = {f"large-{number}": b"x" * 2**20 for number in range(40)}
        with pytest.raises(OutcomeUnknown, match=r"^1\d keys were stored, and then: .* no memory"):
            cache.set_many(large)
        client.config_set("maxmemory", 0)
    stored = cache.get_many(large)
    assert 0 < len(stored) < len(large)
    assert list(stored) == list(large)[: len(stored)]
    assert cache.get("key") == "value"


def test_a_write_to_a_replica_raises_and_names_the_reason(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    """Also one that comes so late that the breaker is closed again: a replica replies to a probe."""
    own_cache.set_many({"key": "value", "count": 1})
    writes: list[Callable[[], object]] = [
        lambda: own_cache.set("key", "new"),
        lambda: own_cache.incr("count"),
        lambda: own_cache.add("new", 1),  # that of a key which exists would write nothing
    ]
    with raw(own_redis) as client:
        client.replicaof("127.0.0.1", "1")
        for write in writes:
            with pytest.raises(StoreUnavailable, match=r"read only replica"):
                write()
        client.replicaof("NO", "ONE")


def test_a_wrong_password_is_an_error_without_any_password_in_it(own_redis: RedisServer) -> None:
    with raw(own_redis) as client:
        client.config_set("requirepass", "right-s3cr3t")
    wrong = ours(own_redis.url, PASSWORD="wrong-s3cr3t")  # noqa: S106
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(StoreUnavailable, match=r"WRONGPASS|invalid") as caught:
            wrong.get("key")
        assert "s3cr3t" not in str(caught.value)
    right = ours(own_redis.url, PASSWORD="right-s3cr3t")  # noqa: S106
    right.set("key", "value")
    assert right.get("key") == "value"


def test_while_redis_loads_its_data_calls_fail_and_then_work() -> None:
    slowly = ["--rdbcompression", "no", "--key-load-delay", "8000"]  # microseconds a key
    with RedisServer(slowly) as server:
        server.start()
        cache = ours(server.url, SOCKET_TIMEOUT=10)
        cache.set_many({f"key-{n}": "x" * 100_000 for n in range(200)})
        with raw(server) as client:
            client.save()
        server.kill()
        seen: set[type] = set()
        loaded = threading.Event()

        def watch() -> None:
            while not loaded.is_set():
                look(cache, seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        until(lambda: seen, "the first look")
        server.start()  # returns when all is loaded
        loaded.set()
        watcher.join()
        assert seen <= {StoreUnavailable, str}  # never a miss
        assert StoreUnavailable in seen
        until(lambda: str in look(cache, seen), "the cache to work again")


def look(cache: RedisCache, seen: set[type]) -> set[type]:
    try:
        seen.add(type(cache.get("key-1")))
    except StoreUnavailable as exc:
        seen.add(type(exc))
    return seen


# -- options of the caller ----------------------------------------------------------------------


def test_failing_reads_may_be_misses_while_writes_raise(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, on_error="miss")
    cache.set("key", "value")
    own_redis.kill()
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    assert cache.has_key("key") is False
    assert cache.ttl("key") == 0
    assert cache.keys("*") == []
    assert cache.get_or_set("key", lambda: "computed") == "computed"
    for name in ("set", "set_many", "add", "incr", "incr_version", "touch", "delete", "clear"):
        with pytest.raises(StoreUnavailable):
            OPERATIONS[name](cache)
    assert cache.stats()["errors_swallowed"] >= 6


def test_get_or_set_computes_once_when_the_store_fails_between(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, on_error="miss")
    calls = []

    def compute() -> str:
        calls.append(1)
        own_redis.kill()
        return "computed"

    assert cache.get_or_set("key", compute) == "computed"
    assert len(calls) == 1


def test_writes_may_be_ignored_by_kind_but_add_and_incr_never_lie(own_redis: RedisServer) -> None:
    everything = {"read": "miss", "set": "ignore", "touch": "ignore", "delete": "ignore"}
    cache = ours(own_redis.url, on_error=everything)
    own_redis.kill()
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.delete("key") is False
    assert cache.touch("key") is False
    cache.set("key", "value")
    cache.delete_many(["key"])
    for name in ("add", "incr", "incr_version"):
        with pytest.raises(StoreUnavailable):
            OPERATIONS[name](cache)


def test_stock_returns_none_from_add_and_still_raises_elsewhere_when_configured_to_ignore(
    own_redis: RedisServer,
) -> None:
    stock = django_redis.cache.RedisCache(own_redis.url, {"OPTIONS": {"IGNORE_EXCEPTIONS": True}})
    own_redis.kill()
    assert stock.add("key", "value") is None
    with pytest.raises(redis.exceptions.ConnectionError):
        list(stock.iter_keys("*"))


def test_the_breaker_is_counted_for_every_alias_that_uses_it(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    own_redis.kill()
    open_the_breaker(own_cache)
    counted = own_cache.stats()
    assert (counted["breaker_opened"], counted["breaker_open_now"]) == (1, 1)
    assert counted["errors_raised"] >= FAILURES_TO_OPEN
    own_redis.start()
    until(lambda: str in look_up(own_cache), "the cache to work again")
    assert own_cache.stats()["breaker_open_now"] == 0


def look_up(cache: RedisCache) -> set[type]:
    try:
        cache.set("key-1", "value")
    except StoreUnavailable:
        return set()
    return look(cache, set())
