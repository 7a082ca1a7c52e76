import os
import signal
import threading
from typing import Any

import django_redis.cache
import pytest
import redis.exceptions
from django.core.cache import caches
from django_redis import get_redis_connection
from pytest_django.fixtures import Settings
from redis.auth.token import SimpleToken

from cacheapp.backends import RedisCache
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.redis.parts import ours, raw


def use(pool: Any) -> Any:
    return pool.get_connection()


def pool_of(cache: RedisCache) -> Any:
    return cache.client.get_client(write=True).connection_pool


def test_aliases_with_one_url_and_other_options_have_pools_of_their_own(
    redis_server: RedisServer,
) -> None:
    short, long = (ours(redis_server.url, SOCKET_TIMEOUT=seconds) for seconds in (1, 9))
    assert pool_of(short).connection_kwargs["socket_timeout"] == 1
    assert pool_of(long).connection_kwargs["socket_timeout"] == 9
    stock = [
        django_redis.cache.RedisCache(redis_server.url, {"OPTIONS": {"SOCKET_TIMEOUT": seconds}})
        for seconds in (1, 9)
    ]
    first, second = (cache.client.get_client().connection_pool for cache in stock)
    assert first is second  # keyed only by URL: the second alias got the options of the first


def test_no_timeout_is_left_to_chance(redis_server: RedisServer) -> None:
    kwargs = pool_of(RedisCache(redis_server.url, {"KEY_PREFIX": "ours"})).connection_kwargs
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (2.0, 1.0)


def test_more_threads_than_connections_wait_instead_of_failing(redis_server: RedisServer) -> None:
    cache = ours(redis_server.url, "many", max_connections=2)
    cache.set("count", 0)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(20):
                cache.incr("count")
        except Exception as exc:  # noqa: BLE001 (shown below)
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cache.get("count") == 320
    assert len(pool_of(cache)._available_connections) <= 2  # noqa: SLF001


def test_no_waiting_call_is_overtaken(redis_server: RedisServer) -> None:
    pool = pool_of(ours(redis_server.url, "fair", max_connections=1))
    served: list[int] = []

    def work(index: int) -> None:
        connection = use(pool)
        served.append(index)  # while no other thread has the only connection
        pool.release(connection)

    held = use(pool)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for index, thread in enumerate(threads):
        thread.start()
        until(lambda index=index: len(pool._waiting) == index + 1, "the call to wait")  # type: ignore[misc]  # noqa: SLF001
    pool.release(held)
    work(4)  # the thread that had the connection has to wait for all of them
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


def test_a_signal_handler_takes_the_place_in_line_of_the_wait_that_it_interrupts(
    redis_server: RedisServer,
) -> None:
    cache = ours(redis_server.url, "handler", max_connections=1)
    cache.set("key", "value")
    pool = pool_of(cache)
    held = pool.get_connection()
    seen: list[Any] = []

    def waiters() -> int:
        return len(pool._waiting)  # noqa: SLF001

    def free() -> None:
        until(lambda: waiters() == 2, "the handler to wait too")
        pool.release(held)

    def interrupt(_number: int, _frame: object) -> None:
        threading.Thread(target=free).start()
        seen.append(cache.get("key"))

    def send() -> None:
        until(waiters, "the wait")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    waiting = threading.Thread(target=send)
    waiting.start()
    try:
        seen.append(cache.get("key"))
    finally:
        signal.signal(signal.SIGUSR1, before)
        waiting.join()
    assert seen == ["value", "value"]


def test_stock_pools_raise_when_they_are_exhausted(redis_server: RedisServer) -> None:
    options = {"CONNECTION_POOL_KWARGS": {"max_connections": 2}}
    stock: Any = django_redis.cache.RedisCache(redis_server.url + "&stock", {"OPTIONS": options})
    pool = stock.client.get_client().connection_pool
    held = [use(pool), use(pool)]
    with pytest.raises(redis.exceptions.MaxConnectionsError):
        stock.get("key")
    for connection in held:
        pool.release(connection)
    pool.disconnect()


def test_waiting_for_a_connection_ends_with_an_error_that_names_the_options(
    redis_server: RedisServer,
) -> None:
    cache = ours(redis_server.url, max_connections=1, pool_timeout=0.05)
    pool = pool_of(cache)
    held = use(pool)
    with pytest.raises(
        StoreUnavailable, match=r"max_connections.* busy for 0\.05 s .*pool_timeout"
    ):
        cache.get("key")
    pool.release(held)
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert cache._store.executor.condition == "breaker closed"  # noqa: SLF001 (Redis did not fail)


def test_no_connection_is_lost_by_failures(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, max_connections=2, pool_timeout=0.5)
    for _ in range(3):
        own_redis.kill()
        for _ in range(10):
            with pytest.raises(StoreUnavailable, match=r"the last \d attempts|failed"):
                cache.get("key")
        own_redis.start()
        until(lambda: works(cache), "the cache to work again")
    pool = pool_of(cache)
    held = [use(pool), use(pool)]
    for connection in held:
        pool.release(connection)


def works(cache: RedisCache) -> bool:
    try:
        cache.set("key", "value")
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("name", ["redis.ConnectionPool", "redis.BlockingConnectionPool"])
def test_a_named_pool_class_is_used_and_waits_too(redis_server: RedisServer, name: str) -> None:
    cache = ours(redis_server.url, CONNECTION_POOL_CLASS=name, max_connections=1, pool_timeout=0.05)
    held = use(pool_of(cache))
    with pytest.raises(StoreUnavailable, match="pool_timeout"):
        cache.get("key")
    pool_of(cache).release(held)


def inode(descriptor: int) -> str:
    return str(os.fstat(descriptor).st_ino)


def test_a_forked_child_uses_connections_of_its_own(redis_server: RedisServer) -> None:
    cache = ours(redis_server.url, "fork", CONNECTION_POOL_KWARGS={"client_name": "forked"})
    cache.set("key", "value")
    inherited = use(pool_of(cache))
    pool_of(cache).release(inherited)
    descriptor = inherited._sock.fileno()  # noqa: SLF001
    ours_here = inode(descriptor)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            value = cache.get("key")
            connection = use(pool_of(cache))
            theirs = inode(connection._sock.fileno())  # noqa: SLF001
            os.write(writing, f"{value} {theirs}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    value, theirs = os.read(reading, 1000).decode().split()
    os.close(reading)
    os.close(writing)
    assert value == "value"
    assert theirs != ours_here
    assert cache.get("key") == "value"
    assert use(pool_of(cache))._sock.fileno() == descriptor  # noqa: SLF001 (still the parent's)


def test_a_fork_amid_busy_threads_leaves_a_child_that_works(redis_server: RedisServer) -> None:
    cache = ours(redis_server.url, "busy", max_connections=3)
    cache.set("count", 0)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            cache.incr("count")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                cache.set(f"child-{os.getpid()}", os.getpid())
                code = int(cache.get(f"child-{os.getpid()}") != os.getpid())
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 10
    assert cache.incr("count") > 1


def test_django_redis_hands_out_its_client_for_commands_of_ones_own(
    redis_server: RedisServer, settings: Settings
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "cacheapp.backends.RedisCache",
            "LOCATION": redis_server.url,
            "KEY_PREFIX": "plain",
            "OPTIONS": PATIENT,
        }
    }
    caches["default"].set("count", 41)
    with raw(redis_server) as client:
        assert client.get("plain:1:count") == b"41"
    assert get_redis_connection("default").incr("plain:1:count") == 42
    assert caches["default"].get("count") == 42


def test_a_released_connection_sends_the_new_token_of_its_user(redis_server: RedisServer) -> None:
    pool = pool_of(ours(redis_server.url))
    connection = pool.get_connection()
    connection.set_re_auth_token(SimpleToken("any", -1, 0, {"oid": "default"}))
    pool.release(connection)
    assert connection._re_auth_token is None  # noqa: SLF001
    assert pool.get_connection() is connection
    pool.release(connection)
