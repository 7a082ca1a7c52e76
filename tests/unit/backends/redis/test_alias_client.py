"""What a caller may conclude from the errors of redis-py's client of a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.exceptions import MovedError, RedisClusterException

from cacheapp.backends.redis.alias_client import collection_method
from cacheapp.errors import CacheappError, OutcomeUnknown, StoreUnavailable


class FailingClient:
    """A client that asks for the slots again after `first`, and finds no node."""

    def __init__(self, first: Exception | None) -> None:
        self._first = first

    def sadd(self, *_args: Any) -> int:
        """Fail as RedisCluster does, which looks for its nodes again after the first failure."""
        error = RedisClusterException("Redis Cluster cannot be connected")
        if self._first is None:
            raise error
        try:
            raise self._first
        except type(self._first):
            raise error  # noqa: B904 (its context is the first)


@pytest.mark.parametrize(
    ("first", "error", "message"),
    [
        (redis.TimeoutError("no reply"), OutcomeUnknown, "no reply.*may have been executed"),
        (redis.ConnectionError("closed"), OutcomeUnknown, "closed.*may have been executed"),
        (MovedError("7 host:1"), StoreUnavailable, "was not executed"),
        (None, StoreUnavailable, "was not executed"),
    ],
    ids=["timed out", "connection lost", "moved", "never connected"],
)
def test_a_lost_reply_is_of_unknown_outcome_though_the_cluster_is_unreachable_afterwards(
    first: Exception | None, error: type[CacheappError], message: str
) -> None:
    cache: Any = SimpleNamespace(key_prefix="")
    codec: Any = None
    sadd = collection_method(cache, lambda: FailingClient(first), codec, "sadd")
    with pytest.raises(error, match=message):
        sadd("key", 1)


def test_an_error_that_the_caller_was_handling_says_nothing_about_the_command() -> None:
    cache: Any = SimpleNamespace(key_prefix="")
    codec: Any = None
    sadd = collection_method(cache, lambda: FailingClient(None), codec, "sadd")
    try:
        redis.Redis(unix_socket_path="/nowhere").ping()
    except redis.ConnectionError:
        with pytest.raises(StoreUnavailable, match="was not executed"):
            sadd("key", 1)
