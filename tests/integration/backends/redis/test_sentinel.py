import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cacheapp.backends import RedisCache
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import Watched, raw, sentinel_site
from tests.integration.interrupts import interrupted_in


@pytest.fixture
def watched() -> Iterator[Watched]:
    with sentinel_site() as site:
        yield site


def works(cache: RedisCache) -> bool:
    try:
        cache.set("after", "value")
    except (StoreUnavailable, OutcomeUnknown):
        return False
    return True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory"},
        {"CLIENT_CLASS": "django_redis.client.SentinelClient"},
    ],
    ids=["SENTINELS alone", "factory named", "client named"],
)
def test_the_primary_that_sentinel_names_is_used(watched: Watched, options: dict[str, Any]) -> None:
    cache = watched.cache(**options)
    cache.set("count", 1)
    assert cache.incr("count") == 2
    with raw(watched.primary) as client:
        assert client.get("ours:1:count") == b"2"


def test_after_the_death_of_the_primary_the_cache_uses_the_promoted_replica(
    watched: Watched,
) -> None:
    cache = watched.cache()
    cache.set("key", "value")
    with raw(watched.replica) as client:
        until(lambda: client.exists("ours:1:key"), "the replica to have it")
        watched.sentinel.suspect_after(1000)
        watched.primary.kill()
        until(lambda: works(cache), "the cache to find the new primary", 120)
        assert cache.get("key") == "value"
        assert client.exists("ours:1:after")


def test_a_primary_that_became_a_replica_is_left_for_the_new_one(watched: Watched) -> None:
    """Its connections stay open, and reads over them would return old values."""
    cache = watched.cache()
    cache.set("count", 1)
    cache.incr("count")
    with raw(watched.replica) as client:
        until(lambda: client.get("ours:1:count") == b"2", "the replica to have it")
        until(watched.fail_over, "the sentinel to agree", 120)
        until(lambda: client.role()[0] == b"master", "the promotion", 120)
        with raw(watched.primary) as before:
            until(lambda: before.role()[0] == b"slave", "the demotion", 120)
        assert until(lambda: works(cache) and cache.incr("count"), "the new primary", 120) == 3
        assert client.get("ours:1:count") == b"3"


def test_an_interrupted_connection_of_sentinel_is_never_used_again(watched: Watched) -> None:
    """redis-py itself leaves these connected, with an unread reply."""
    cache = watched.cache(SOCKET_TIMEOUT=100, max_connections=1)
    cache.set_many({"mine": "mine", "other": "other"})

    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    watched.sentinel.send(signal.SIGSTOP)  # so that it does not take the pause for a failure
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(cache.get("other")))
    pool = cache.client.get_client(write=True).connection_pool
    try:
        watched.primary.send(signal.SIGSTOP)
        with pytest.raises(Interrupted), interrupted_in("read_response"):
            cache.get("mine")
        reader.start()  # before the interrupted reply arrives
        until(lambda: pool._in_use_connections, "the reader to have a connection")  # noqa: SLF001
    finally:
        signal.signal(signal.SIGUSR1, before)
        watched.primary.send(signal.SIGCONT)
        watched.sentinel.send(signal.SIGCONT)
    reader.join()
    assert found == ["other"]
