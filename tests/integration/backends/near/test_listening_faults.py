"""What ends a listener, and who comes after it: forks, kills, overrun buffers, a failover."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from cacheapp.backends import NearCache, RedisCache
from cacheapp.processes.servers import RedisServer, child_env
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.interrupt_everywhere import interrupt_everywhere
from tests.integration.backends.near.parts import (
    confirmed,
    other,
    ours,
    raw,
    start_worker,
    until_copied,
)
from tests.integration.backends.redis.parts import sentinel_site

_FORKING = """
import json, os, signal, sys
from django.conf import settings
settings.configure(CACHES={}, SECRET_KEY=sys.argv[3], CACHEAPP={"STATE_DIR": sys.argv[2]})
from cacheapp import clock
from cacheapp.backends import NearCache
from cacheapp.processes.waiting import until
cache = NearCache(sys.argv[1], {"KEY_PREFIX": "near", "OPTIONS": {**json.loads(sys.argv[4]),
    "copy": sys.argv[2] + "/copy", "size_limit": 8 * 2**20, "max_staleness": 30.0}})

def served():
    before = cache.stats()["copy_hits"]
    cache.get("key")
    return cache.stats()["copy_hits"] > before

until(served, "the copy to be served")
parent, epoch = os.getpid(), cache.stats()["copy_epoch"]
assert cache.stats()["copy_listener_pid"] == parent
if os.fork():
    signal.pause()
until(served, "the child to be served")
assert cache.stats()["copy_listener_pid"] == parent, "the child has taken over from a living parent"
os.kill(parent, signal.SIGKILL)
boot_s = clock.boot_s
clock.boot_s = lambda: boot_s() + 60.0  # the claim of the parent has ended
until(lambda: served() and cache.stats()["copy_listener_pid"] == os.getpid(), "the child")
print("epochs later:", cache.stats()["copy_epoch"] - epoch, flush=True)
"""


def test_a_child_listens_only_after_its_parent_and_begins_anew(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    arguments = [redis_server.url, str(tmp_path), settings.SECRET_KEY, json.dumps(PATIENT)]
    with subprocess.Popen(
        [sys.executable, "-c", _FORKING, *arguments], stdout=subprocess.PIPE, env=child_env()
    ) as parent:
        assert parent.stdout is not None
        words = parent.stdout.read().decode().split(":")
    assert parent.returncode == -signal.SIGKILL
    assert words[0] == "epochs later"
    assert int(words[1]) >= 1


def test_a_connection_that_overran_its_buffer_begins_a_new_epoch(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    worker = start_worker(own_redis, tmp_path, 0.5, 300, tmp_path / "unused.json")
    cache = ours(own_redis, tmp_path, max_staleness=0.5)
    try:
        with raw(own_redis) as client:
            until(lambda: cache.stats()["copy_listener_pid"] == worker.pid, "it to listen")
            until(lambda: "t" in _flags(own_redis), "it to track")
            epoch = cache.stats()["copy_epoch"]
            client.config_set("client-output-buffer-limit", "normal 32768 0 0")
            os.kill(worker.pid, signal.SIGSTOP)
            with client.pipeline(transaction=False) as flood:
                for number in range(2000):
                    flood.set(f"near:1:{'x' * 1000}{number}", b"", px=1000)
                flood.execute()
            until(lambda: "t" not in _flags(own_redis), "Redis to close the connection")
            client.delete("near:1:number")
            os.kill(worker.pid, signal.SIGCONT)
            until(lambda: cache.stats()["copy_epoch"] > epoch, "another epoch")
            assert cache.get("number") is None
    finally:
        worker.kill()
        worker.wait()


def _flags(server: RedisServer) -> str:
    with raw(server) as client:
        return "".join(each["flags"] for each in client.client_list())


@pytest.mark.soak
def test_after_a_failover_the_copy_follows_the_new_primary(tmp_path: Path) -> None:
    with sentinel_site() as watched:
        options = {
            "copy": str(tmp_path / "copy"),
            "size_limit": 8 * 2**20,
            "SENTINELS": [("127.0.0.1", watched.sentinel.port)],
            **PATIENT,
        }
        cache = NearCache("redis://cached/0", {"KEY_PREFIX": "ours", "OPTIONS": options})
        confirmed(cache)
        cache.set("key", "old")
        until_copied(cache, lambda: cache.get("key"))
        epoch = cache.stats()["copy_epoch"]
        with raw(watched.replica) as client:
            until(lambda: client.exists("ours:1:key"), "the replica to have it", 60)
            until(watched.fail_over, "the sentinel to agree", 120)
            until(lambda: client.role()[0] == b"master", "the promotion", 120)
            RedisCache(watched.replica.url, {"KEY_PREFIX": "ours"}).set("key", "new")
            until(lambda: cache.get("key") == "new", "the write to the new primary", 120)
        until(lambda: cache.get("key") and cache.stats()["copy_epoch"] > epoch, "an epoch", 120)
        until_copied(cache, lambda: cache.get("key"))
        assert cache.get("key") == "new"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("operation", "step"),
    [
        (lambda cache: cache.get("key"), 3),
        (lambda cache: (cache._copy.forget([cache.make_key("key")]), cache.get("key")), 31),  # noqa: SLF001
        (lambda cache: cache.get_many(["key", "other"]), 211),
        (lambda cache: cache.set("key", "value"), 23),
        (lambda cache: cache.incr_version("moved"), 97),
    ],
    ids=["get", "get that fills", "get_many", "set", "incr_version"],
)
def test_an_exception_of_a_handler_at_any_bytecode_leaves_the_copy_right(
    redis_server: RedisServer, tmp_path: Path, operation: object, step: int
) -> None:
    cache = ours(redis_server, tmp_path, prefix=tmp_path.name)
    confirmed(cache)
    elsewhere = other(cache)
    number = 0

    def prepare() -> None:
        cache.set("key", "value")
        cache.set("moved", 1)

    def check() -> None:
        nonlocal number
        number += 1
        elsewhere.set("key", number)
        until(lambda: cache.get("key") == number, "the write of another machine", 60)

    assert callable(operation)
    count = interrupt_everywhere(cache, lambda: operation(cache), check, step=step, prepare=prepare)
    assert count > 10
    until_copied(cache, lambda: cache.get("key"))
