"""A cluster whose nodes the tests here may stop, and whose slots they may move."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from cacheapp.backends import RedisCache
from cacheapp.processes.redis_cluster import PrivateCluster
from tests.contract.backends import PATIENT

Build = Callable[..., RedisCache]


@pytest.fixture(scope="package")
def own_cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster(options=["--enable-debug-command", "yes"]) as cluster:
        yield cluster.start()


@pytest.fixture
def build(own_cluster: PrivateCluster) -> Build:
    """Return a cache on that cluster, under a prefix of the test's own."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"

    def build(location: str | None = None, **options: object) -> RedisCache:
        found = location or own_cluster.url
        return RedisCache(found, {"KEY_PREFIX": prefix, "OPTIONS": {**PATIENT, **options}})

    return build


@pytest.fixture
def cache(build: Build) -> RedisCache:
    return build()
