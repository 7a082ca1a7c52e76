import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import django_redis.cache
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cacheapp import clock
from cacheapp.backends import RedisCache
from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import (
    OPERATIONS,
    Wire,
    open_the_breaker,
    ours,
    raw,
    sent,
)
from tests.integration.interrupts import interrupted_in


@pytest.fixture
def wire(own_redis: RedisServer) -> Iterator[Wire]:
    with Wire(own_redis) as wire:
        yield wire


def succeeds(call: Callable[[], object]) -> bool:
    """Make the call; return False if Redis was down or too slow."""
    try:
        call()
    except (StoreUnavailable, OutcomeUnknown, RedisTimeoutError):
        return False
    return True


def through(wire: Wire, **options: Any) -> RedisCache:
    return ours(wire.url, **options)


# -- the server is down --------------------------------------------------------------------------


def test_with_redis_down_every_operation_raises_and_reports_that_it_was_not_executed(
    own_redis: RedisServer, own_cache: RedisCache
) -> None:
    own_cache.set("key", 1)
    own_redis.kill()
    for operation in OPERATIONS.values():
        with pytest.raises(StoreUnavailable, match=r"was not executed|nothing was sent"):
            operation(own_cache)


@pytest.mark.parametrize("breaker", ["open", "closed"])
def test_after_a_restart_the_same_objects_work_again(
    own_redis: RedisServer, own_cache: RedisCache, breaker: str
) -> None:
    own_cache.set("key", "value")
    own_redis.kill()
    if breaker == "open":
        open_the_breaker(own_cache)
    own_redis.start()

    until(lambda: succeeds(lambda: own_cache.set("key", "new")), "the cache to work again")
    assert own_cache.get("key") == "new"


@pytest.mark.parametrize("by", ["socket file", "TCP"])
def test_a_connection_that_a_restart_made_stale_is_noticed_before_anything_is_sent(
    own_redis: RedisServer, wire: Wire, by: str
) -> None:
    """On TCP the first bytes to a dead server cause no error, so the outcome is unknown."""
    cache = through(wire) if by == "TCP" else ours(own_redis.url)
    cache.set("count", 1)
    own_redis.kill()
    wire.until_cut()
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
        until(lambda: all(now > b for now, b in zip(right, before, strict=True)), "work")  # noqa: B023
        own_redis.kill()
        own_redis.start()
    before = list(right)
    until(lambda: all(now > b for now, b in zip(right, before, strict=True)), "recovery")
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- the server hangs ----------------------------------------------------------------------------


@pytest.fixture
def hung_redis(own_redis: RedisServer) -> Iterator[RedisServer]:
    yield own_redis
    own_redis.send(signal.SIGCONT)


def test_a_hung_redis_opens_the_breaker_and_is_used_again_when_it_resumes(
    hung_redis: RedisServer,
) -> None:
    cache = ours(hung_redis.url, SOCKET_TIMEOUT=0.5)
    until(lambda: succeeds(lambda: cache.set("key", "value")), "the value to be stored")
    hung_redis.send(signal.SIGSTOP)
    open_the_breaker(cache)

    def refused() -> bool:
        try:
            cache.get("key")
        except StoreUnavailable as exc:
            return "nothing was sent" in str(exc)
        return False

    until(refused, "a call between two probes")
    hung_redis.send(signal.SIGCONT)

    def answers() -> Any:
        try:
            return cache.get("key")
        except StoreUnavailable:
            return None

    assert until(answers, "the cache to work again") == "value"


def test_with_stock_every_call_to_a_hung_redis_waits_out_its_time(hung_redis: RedisServer) -> None:
    stock: Any = django_redis.cache.RedisCache(
        f"{hung_redis.url}&stock", {"OPTIONS": {"SOCKET_TIMEOUT": 0.5}}
    )
    until(lambda: succeeds(lambda: stock.set("key", "value")), "the value to be stored")
    hung_redis.send(signal.SIGSTOP)
    for _ in range(FAILURES_TO_OPEN + 2):
        began_s = clock.monotonic_s()
        with pytest.raises(RedisTimeoutError):
            stock.get("key")
        assert clock.monotonic_s() - began_s >= 0.49
    stock.client.get_client().connection_pool.disconnect()


def test_a_write_that_a_hung_redis_may_still_run_has_an_unknown_outcome(
    hung_redis: RedisServer,
) -> None:
    cache = ours(hung_redis.url, SOCKET_TIMEOUT=0.5)
    until(lambda: succeeds(lambda: cache.set("count", 1) or cache.incr("count")), "a count of 2")
    hung_redis.send(signal.SIGSTOP)
    with pytest.raises(OutcomeUnknown, match=r"incr 'ours:1:count' was sent .* Timeout"):
        cache.incr("count")
    hung_redis.send(signal.SIGCONT)
    with raw(hung_redis) as client:  # it was executed: a repetition would count twice
        until(lambda: client.get("ours:1:count") == b"3", "the increment to arrive")


# -- the reply is lost ----------------------------------------------------------------------------

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
def test_a_write_whose_reply_was_lost_is_sent_once_and_raises_outcome_unknown(
    own_redis: RedisServer, wire: Wire, write: Callable[[RedisCache], Any]
) -> None:
    cache = through(wire)
    cache.set_many({"key": "value", "count": 1})
    write(cache)
    cache.set_many({"key": "value", "count": 1})
    cache.delete("fresh")
    wire.lose()

    def lose() -> None:
        with pytest.raises(OutcomeUnknown, match=r"was sent .* it was not repeated"):
            write(cache)

    assert len(sent(own_redis, lose)) == 1
    assert wire.lost == 1


def test_an_increment_whose_reply_was_lost_counted_once(own_redis: RedisServer, wire: Wire) -> None:
    cache = through(wire)
    cache.set("count", 1)
    cache.incr("count")
    wire.lose()
    with pytest.raises(OutcomeUnknown):
        cache.incr("count")
    with raw(own_redis) as client:
        assert client.get("ours:1:count") == b"3"


def test_an_add_whose_reply_was_lost_does_not_lose_to_itself(
    own_redis: RedisServer, wire: Wire
) -> None:
    cache = through(wire)
    cache.add("other", "makes Redis know the script")
    wire.lose()
    with pytest.raises(OutcomeUnknown, match="add 'ours:1:key'"):
        cache.add("key", "mine")
    assert cache.get("key") == "mine"


def test_a_read_whose_reply_was_lost_is_repeated(own_redis: RedisServer, wire: Wire) -> None:
    cache = through(wire)
    cache.set("key", "value")
    wire.lose()
    found = []
    reader = threading.Thread(target=lambda: found.append(cache.get("key")))
    reader.start()
    reader.join()
    assert found == ["value"]
    assert wire.lost == 1


def test_with_stock_a_read_whose_reply_was_lost_fails(own_redis: RedisServer, wire: Wire) -> None:
    stock: Any = django_redis.cache.RedisCache(wire.url, {"OPTIONS": {"SOCKET_TIMEOUT": 60}})
    stock.set("key", "value")
    wire.lose()
    found: list[Any] = []

    def read() -> None:
        try:
            found.append(stock.get("key"))
        except RedisConnectionError as exc:
            found.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    assert isinstance(
        found[0], RedisConnectionError
    )  # pools that are built from a URL do not retry
    stock.client.get_client().connection_pool.disconnect()


def test_a_connection_interrupted_in_mid_answer_is_never_used_again(
    hung_redis: RedisServer,
) -> None:
    """Gunicorn ends a worker's threads by `SystemExit`; a signal handler may raise anything."""
    cache = ours(hung_redis.url, max_connections=1)
    cache.set_many({"mine": "mine", "other": "other"})

    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        hung_redis.send(signal.SIGSTOP)
        with pytest.raises(Interrupted), interrupted_in("read_response"):
            cache.get("mine")
    finally:
        signal.signal(signal.SIGUSR1, before)
        hung_redis.send(signal.SIGCONT)
    assert [cache.get("other"), cache.get("mine")] == ["other", "mine"]
