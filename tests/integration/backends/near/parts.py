"""Helpers of the NearCache tests: caches, and a worker whose reads are checked against the bound."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from django.conf import settings

from cacheapp.backends import NearCache, RedisCache
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT

WORKER = """
import json, sys, time
from django.conf import settings
settings.configure(CACHES={}, SECRET_KEY=sys.argv[7], CACHEAPP={"STATE_DIR": sys.argv[4]})
from cacheapp.backends import NearCache
from cacheapp.errors import CacheappError
cache = NearCache(sys.argv[1], {"KEY_PREFIX": "near", "OPTIONS": {
    "copy": sys.argv[2], "size_limit": 8 * 2**20, "max_staleness": float(sys.argv[3])}})
ends_s = time.monotonic() + float(sys.argv[5])
reads = []
while time.monotonic() < ends_s or not (cache.stats()["copy_hits"] and len(reads) > 100):
    began_s = time.monotonic()
    try:
        value = cache.get("number")
    except CacheappError:
        continue
    reads.append((began_s, value and value["number"]))
    time.sleep(0.0002)  # what a request does between two reads
with open(sys.argv[6], "w") as file:
    json.dump({"reads": reads, "stats": cache.stats()}, file)
"""


def ours(server: RedisServer, directory: Path, prefix: str = "near", **options: Any) -> NearCache:
    """Return a patient NearCache; equal options share one store, as aliases do.

    Its bound is one that no busy machine comes to, unless the test is about it.
    """
    made = {"copy": str(directory / "copy"), "size_limit": 8 * 2**20, "max_staleness": 30.0}
    made |= {**PATIENT, **options}
    return NearCache(server.url, {"KEY_PREFIX": prefix, "OPTIONS": made})


def other(cache: NearCache) -> RedisCache:
    """Return the patient cache of another machine, with the same keys."""
    return RedisCache(cache.location, {"KEY_PREFIX": cache.key_prefix, "OPTIONS": PATIENT})


def raw(server: RedisServer) -> redis.Redis:
    """Return a plain client of the server, as another machine would use."""
    return redis.Redis(unix_socket_path=str(server.socket))


def kill_tracking(server: RedisServer) -> int:
    """End the connections that track keys, as an overrun of their output buffer does; count them."""
    with raw(server) as client:
        tracking = [each for each in client.client_list() if "t" in each["flags"]]
        for each in tracking:
            client.client_kill_filter(_id=each["id"])
    return len(tracking)


def confirmed(cache: NearCache, key: str = "confirmed") -> None:
    """Wait until reads are served from the copy."""

    def is_served() -> bool:
        before = cache.stats()["copy_hits"]
        cache.get(key)
        return cache.stats()["copy_hits"] > before

    until(is_served, "the copy to be served")


def reads_of_redis(cache: NearCache, work: Callable[[], Any]) -> int:
    """Return how many reads during `work` were not answered by the copy."""
    names = ("copy_absent", "copy_unproved", "copy_excluded")
    before = cache.stats()
    work()
    after = cache.stats()
    return sum(after[name] - before[name] for name in names)


def changes_of(cache: NearCache, key: str) -> int:
    """Return the counter of changes of a key in the copy."""
    copy = cache._copy  # noqa: SLF001
    return copy.environment.reference_bits.changes(copy.keys.name(cache.make_key(key)))


def until_copied(cache: NearCache, work: Callable[[], Any]) -> None:
    """Wait until the copy answers all reads of `work`, once.

    The invalidation of an earlier write may still come afterwards, and empty it again: a test that
    needs the copy to answer the next read too calls `until_settled` before.
    """
    until(lambda: reads_of_redis(cache, work) == 0, "the copy to answer")


def until_settled(cache: NearCache) -> None:
    """Wait until the invalidations of all earlier writes have been applied: Redis sends them in order."""
    until_copied(cache, lambda: cache.get("settled"))
    mark = uuid.uuid4().hex
    other(cache).set("settled", mark)
    until(lambda: cache.get("settled") == mark, "the last write to be seen")


def start_worker(
    server: RedisServer, directory: Path, staleness_s: float, seconds: float, results: Path
) -> subprocess.Popen[bytes]:
    """Start a process that reads one key again and again, and writes what it saw to a file."""
    state, secret = directory / "state", settings.SECRET_KEY
    arguments = (server.url, directory / "copy", staleness_s, state, seconds, results, secret)
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
