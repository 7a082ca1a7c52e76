"""Fixtures for tests of a single backend."""

from collections.abc import Iterator

import pytest

from cacheapp.backends import RedisCache
from cacheapp.processes.servers import RedisServer
from tests.integration.backends.disk.parts import close_stock
from tests.integration.backends.redis.parts import ours


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may stop, pause, kill and restart."""
    with RedisServer() as server:
        yield server.start()


@pytest.fixture
def own_cache(own_redis: RedisServer) -> RedisCache:
    """A cache on that Redis."""
    return ours(own_redis.url)


@pytest.fixture(autouse=True)
def _no_stock_connection_left() -> Iterator[None]:
    yield
    close_stock()
