import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import django_redis.cache
import pytest
import redis.exceptions

from cacheapp.backends import RedisCache
from cacheapp.backends.breaker import FAILURES_TO_OPEN
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from cacheapp.lab.servers import RedisServer
from cacheapp.lab.waiting import until
from tests.integration.redis_parts import Wire, ours, raw, sent

OPERATIONS: dict[str, Callable[[RedisCache], Any]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key"]),
    "has_key": lambda cache: cache.has_key("key"),
    "ttl": lambda cache: cache.ttl("key"),
    "keys": lambda cache: cache.keys("*"),
    "set": lambda cache: cache.set("key", "value"),
    "set_many": lambda cache: cache.set_many({"key": "value"}),
    "add": lambda cache: cache.add("key", "value"),
    "incr": lambda cache: cache.incr("key"),
    "incr_version": lambda cache: cache.incr_version("key"),
    "touch": lambda cache: cache.touch("key", 5),
    "persist": lambda cache: cache.persist("key"),
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
    "delete_pattern": lambda cache: cache.delete_pattern("*"),
    "clear": lambda cache: cache.clear(),
}


@pytest.fixture
def wire(own_redis: RedisServer) -> Iterator[Wire]:
    with Wire(own_redis) as wire:
        yield wire


def through(wire: Wire, **options: Any) -> RedisCache:
    return ours(wire.url, SOCKET_TIMEOUT=5, **options)


def open_the_breaker(cache: RedisCache) -> None:
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            cache.get("key")


# -- the server is gone --------------------------------------------------------------------------


def test_with_redis_down_every_operation_raises_and_says_that_it_did_not_happen(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    own_cache.set("key", 1)
    own_redis.kill()
    for operation in OPERATIONS.values():
        with pytest.raises(StoreUnavailable, match=r"did not happen|not asked|failed a probe"):
            operation(own_cache)


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_after_a_restart_the_same_objects_work_again(
    own_redis: RedisServer, own_cache: RedisCache, way: str
) -> None:
    own_cache.set("key", "value")
    own_redis.kill()
    if way == "killed":
        open_the_breaker(own_cache)
    own_redis.start()

    def answers() -> bool:
        try:
            own_cache.set("key", "new")
        except StoreUnavailable:
            return False
        return True

    until(answers, "the cache to work again", 20)
    assert own_cache.get("key") == "new"


@pytest.mark.parametrize("by", ["socket file", "TCP"])
def test_a_connection_that_a_restart_made_stale_is_noticed_before_anything_is_sent(
    own_redis: RedisServer, wire: Wire, by: str
) -> None:
    """On TCP the first bytes sent to a server that is gone meet no error: their fate is unknown."""
    cache = through(wire) if by == "TCP" else ours(own_redis.url)
    cache.set("count", 1)
    own_redis.kill()
    own_redis.start()
    with raw(own_redis) as client:
        client.set("ours:1:count", 5)
    assert cache.incr("count") == 6


def test_many_threads_recover_from_a_restart_without_a_wrong_answer(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    done = threading.Event()
    wrong: list[Any] = []
    right = [0] * 6

    def work(index: int) -> None:
        mine = f"key-{index}"
        while not done.is_set():
            try:
                own_cache.set(mine, mine)
                value = own_cache.get(mine)
            except (StoreUnavailable, OutcomeUnknown):
                continue
            if value == mine:
                right[index] += 1
            elif value is not None:  # a restarted Redis is empty
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = list(right)
        until(lambda: all(now > b for now, b in zip(right, before, strict=True)), "work", 30)  # noqa: B023
        own_redis.kill()
        own_redis.start()
    before = list(right)
    until(lambda: all(now > b for now, b in zip(right, before, strict=True)), "recovery", 30)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- the server hangs ----------------------------------------------------------------------------


@pytest.fixture
def hung_redis(own_redis: RedisServer) -> Iterator[RedisServer]:
    yield own_redis
    own_redis.send(signal.SIGCONT)


def test_a_hung_redis_opens_the_breaker_and_is_used_again_when_it_goes_on(
    hung_redis: RedisServer,
) -> None:
    cache = ours(hung_redis.url, SOCKET_TIMEOUT=0.2)
    cache.set("key", "value")
    hung_redis.send(signal.SIGSTOP)
    open_the_breaker(cache)

    def refused() -> bool:
        try:
            cache.get("key")
        except StoreUnavailable as exc:
            return "was not asked" in str(exc)
        return False

    until(refused, "a call between two probes")
    hung_redis.send(signal.SIGCONT)

    def answers() -> Any:
        try:
            return cache.get("key")
        except StoreUnavailable:
            return None

    assert until(answers, "the cache to work again", 20) == "value"


def test_a_write_that_a_hung_redis_may_still_run_has_an_unknown_outcome(
    hung_redis: RedisServer,
) -> None:
    cache = ours(hung_redis.url, SOCKET_TIMEOUT=0.2)
    cache.set("count", 1)
    cache.incr("count")
    hung_redis.send(signal.SIGSTOP)
    with pytest.raises(OutcomeUnknown, match=r"incr 'ours:1:count' was sent .* Timeout"):
        cache.incr("count")
    hung_redis.send(signal.SIGCONT)
    with raw(hung_redis) as client:  # it did happen: whoever repeated it would count twice
        until(lambda: client.get("ours:1:count") == b"3", "the increment to arrive")


# -- the answer is lost --------------------------------------------------------------------------

WRITES = {
    "set": lambda cache: cache.set("key", "new"),
    "set_many": lambda cache: cache.set_many({"key": "new"}),
    "add": lambda cache: cache.add("fresh", "value"),
    "incr": lambda cache: cache.incr("count"),
    "touch": lambda cache: cache.touch("key", 5),
    "touch for ever": lambda cache: cache.touch("key", None),
    "persist": lambda cache: cache.persist("key"),
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_whose_answer_was_lost_is_sent_once_and_raises_outcome_unknown(
    own_redis: RedisServer, wire: Wire, write: Callable[[RedisCache], Any]
) -> None:
    cache = through(wire)
    cache.set_many({"key": "value", "count": 1})
    write(cache)
    cache.set_many({"key": "value", "count": 1})
    cache.delete("fresh")
    wire.lose_answers.set()

    def lose() -> None:
        with pytest.raises(OutcomeUnknown, match=r"was sent .* it was not repeated"):
            write(cache)

    assert len(sent(own_redis, lose)) == 1
    assert wire.lost == 1


def test_an_increment_whose_answer_was_lost_counted_once(
    own_redis: RedisServer, wire: Wire
) -> None:
    cache = through(wire)
    cache.set("count", 1)
    cache.incr("count")
    wire.lose_answers.set()
    with pytest.raises(OutcomeUnknown):
        cache.incr("count")
    with raw(own_redis) as client:
        assert client.get("ours:1:count") == b"3"


def test_an_add_whose_answer_was_lost_does_not_lose_to_itself(
    own_redis: RedisServer, wire: Wire
) -> None:
    cache = through(wire)
    cache.get("key")
    wire.lose_answers.set()
    with pytest.raises(OutcomeUnknown, match="SET 'ours:1:key'"):
        cache.add("key", "mine")
    wire.lose_answers.clear()
    assert cache.get("key") == "mine"


def test_a_read_whose_answer_was_lost_is_asked_again(own_redis: RedisServer, wire: Wire) -> None:
    cache = through(wire)
    cache.set("key", "value")
    wire.lose_answers.set()
    found = []
    reader = threading.Thread(target=lambda: found.append(cache.get("key")))
    reader.start()
    until(lambda: wire.lost, "the answer to be lost")
    wire.lose_answers.clear()
    reader.join()
    assert found == ["value"]
    assert wire.lost < FAILURES_TO_OPEN


def test_a_connection_interrupted_in_mid_answer_is_never_used_again(
    hung_redis: RedisServer,
) -> None:
    """Gunicorn ends a worker's threads by `SystemExit`; a signal handler may raise anything."""
    cache = ours(hung_redis.url, SOCKET_TIMEOUT=30, max_connections=1)
    cache.set_many({"mine": "mine", "other": "other"})

    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        hung_redis.send(signal.SIGSTOP)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Interrupted):
            cache.get("mine")
    finally:
        signal.signal(signal.SIGUSR1, before)
        hung_redis.send(signal.SIGCONT)
    assert [cache.get("other"), cache.get("mine")] == ["other", "mine"]


# -- the server answers, but no ------------------------------------------------------------------


def test_without_memory_writes_raise_store_full_and_reads_go_on(
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


def test_a_replica_takes_no_write_and_says_so(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    own_cache.set_many({"key": "value", "count": 1})
    with raw(own_redis) as client:
        client.replicaof("127.0.0.1", "1")
        for name in ("set", "incr", "add"):
            with pytest.raises(StoreUnavailable, match=r"read only replica|not asked"):
                OPERATIONS[name](own_cache)
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
    slowly = ["--rdbcompression", "no", "--key-load-delay", "2000"]  # microseconds a key
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
        server.start()  # returns when all is loaded
        loaded.set()
        watcher.join()
        assert seen <= {StoreUnavailable, str}  # never a miss
        assert StoreUnavailable in seen
        until(lambda: str in look(cache, seen), "the cache to work again", 20)


def look(cache: RedisCache, seen: set[type]) -> set[type]:
    try:
        seen.add(type(cache.get("key-1")))
    except StoreUnavailable as exc:
        seen.add(type(exc))
    return seen


# -- what the caller may ask for -----------------------------------------------------------------


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


def test_stock_returns_none_from_add_and_still_raises_elsewhere_when_told_to_ignore(
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
    until(lambda: str in look_up(own_cache), "the cache to work again", 20)
    assert own_cache.stats()["breaker_open_now"] == 0


def look_up(cache: RedisCache) -> set[type]:
    try:
        cache.set("key-1", "value")
    except StoreUnavailable:
        return set()
    return look(cache, set())
