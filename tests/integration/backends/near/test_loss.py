"""A copy whose listener or server is gone. cachecheck judges the bound under all faults."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.near.parts import (
    confirmed,
    ours,
    raw,
    start_worker,
)

_STALENESS_S = 0.5


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that may be stopped."""
    with RedisServer() as started:
        yield started.start()


def test_a_listener_that_was_killed_is_replaced(server: RedisServer, tmp_path: Path) -> None:
    worker = start_worker(server, tmp_path, _STALENESS_S, 300, tmp_path / "unused.json")
    cache = ours(server, tmp_path, max_staleness=_STALENESS_S)

    def followed() -> int:
        """Return the epoch if the copy is served while the worker listens, else 0."""
        until(lambda: cache.stats()["copy_listener_pid"] == worker.pid, "the worker to listen")
        confirmed(cache, "number")
        found = cache.stats()
        if found["copy_listener_pid"] == worker.pid:
            return found["copy_epoch"]
        cache._store.invalidations.stop()  # noqa: SLF001 (the worker was too slow)
        return 0

    with raw(server) as client:
        try:
            cache.set("number", {"number": 1})
            epoch = until(followed, "the copy to be served")
        finally:
            worker.kill()
            worker.wait()
        client.delete("near:1:number")
        until(lambda: cache.get("number") is None, "the bound")
        confirmed(cache, "number")
    assert cache.stats()["copy_listener_pid"] == os.getpid()
    assert cache.stats()["copy_epoch"] > epoch


def test_a_server_that_is_gone_is_noticed_within_the_bound(
    server: RedisServer, tmp_path: Path
) -> None:
    cache = ours(server, tmp_path, max_staleness=_STALENESS_S, on_error="miss")
    cache.set("key", "value")
    confirmed(cache, "key")
    server.send(signal.SIGKILL)
    until(lambda: cache.get("key") is None, "the copy to be served no longer")
