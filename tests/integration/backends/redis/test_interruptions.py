"""An exception of a signal handler at any point of an operation loses no connection of the pool."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cacheapp.backends import RedisCache
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.interrupt_everywhere import LEFT_HELD_S, interrupt_everywhere
from tests.integration.backends.redis.parts import ours

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def _pool(cache: Any) -> Any:
    return cache._store.executor.pool  # noqa: SLF001


OPERATIONS: dict[str, tuple[Callable[[RedisCache], object], int]] = {
    "get": (lambda cache: cache.get("key"), 1),
    "set": (lambda cache: cache.set("key", "value"), 1),
    "get_many": (lambda cache: cache.get_many(["key", "other"]), 17),
    "iter_keys": (lambda cache: next(cache.iter_keys("*")), 53),
    "delete_pattern": (lambda cache: cache.delete_pattern("k*"), 61),
}


# A socket that was being opened is closed by its finaliser.
@pytest.mark.filterwarnings("ignore:unclosed.*socket:ResourceWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_of_a_handler_leaves_the_only_connection_usable(
    own_redis: RedisServer, name: str
) -> None:
    cache = ours(own_redis.url, max_connections=1, pool_timeout=LEFT_HELD_S)
    operation, step = OPERATIONS[name]

    def check() -> None:
        cache.set_many({"key": "value", "other": 1})
        pool = _pool(cache)
        assert len(pool._available_connections) <= 1  # noqa: SLF001
        assert not pool._in_use_connections  # noqa: SLF001

    check()
    assert interrupt_everywhere(cache, lambda: operation(cache), check, step=step) * step > 100


def test_a_pool_without_patience_takes_a_lost_connection_back_too(
    redis_server: RedisServer,
) -> None:
    cache = ours(redis_server.url, "impatient", max_connections=1, pool_timeout=0.01)
    _pool(cache).lend()  # and no function releases it
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_no_connection_is_taken_from_a_call_that_still_waits_for_its_reply(
    own_redis: RedisServer,
) -> None:
    cache = ours(own_redis.url, max_connections=1, pool_timeout=0.3)
    pool = _pool(cache)
    cache.set("key", "value")
    reader = threading.Thread(target=lambda: seen.append(cache.get("key")))
    seen: list[object] = []
    own_redis.send(signal.SIGSTOP)
    try:
        reader.start()
        until(lambda: pool._in_use_connections, "the read to begin")  # noqa: SLF001
        with pytest.raises(StoreUnavailable, match="pool_timeout"):
            cache.get("key")
    finally:
        own_redis.send(signal.SIGCONT)
    reader.join()
    assert seen == ["value"]
