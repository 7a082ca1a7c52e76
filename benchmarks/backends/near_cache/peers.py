"""The caches that are compared, on one private Redis, close to it and behind a slow network."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.backends.near_cache.network import proxy
from benchmarks.measuring import set_up_django
from cacheapp.processes.servers import RedisServer

STOCK, REDIS, NEAR, COPIES, LMDB, LOCMEM = (
    "django-redis",
    "RedisCache",
    "NearCache",
    "copies in each process",
    "LMDBCache",
    "LocMemCache",
)
LASTING = "copies without a TTL"
_BACKENDS = {
    STOCK: "django_redis.cache.RedisCache",
    REDIS: "cacheapp.backends.RedisCache",
    NEAR: "cacheapp.backends.NearCache",
    COPIES: "benchmarks.backends.near_cache.process_copies.ProcessCopies",
    LASTING: "benchmarks.backends.near_cache.process_copies.LastingProcessCopies",
    LMDB: "cacheapp.backends.LMDBCache",
    LOCMEM: "django.core.cache.backends.locmem.LocMemCache",
}
ON_REDIS = (STOCK, REDIS, NEAR, COPIES)
CLOSE = (*ON_REDIS, LMDB, LOCMEM)
SIZE_LIMIT = 512 * 2**20
_DAY_S = 86_400


def far(name: str) -> str:
    """Return the alias of a cache behind the slow network."""
    return f"{name}, far"


@dataclass(frozen=True)
class Peers:
    """The servers of the caches."""

    server: RedisServer
    directory: Path
    far_url: str

    def prefix(self, alias: str) -> str:
        """Return what the keys of an alias begin with."""
        return _prefix(alias)


def _prefix(alias: str) -> str:
    return alias.replace(" ", "-").replace(",", "")


def _entry(name: str, alias: str, url: str, directory: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "BACKEND": _BACKENDS[name],
        "LOCATION": url,
        "TIMEOUT": _DAY_S,
        "KEY_PREFIX": _prefix(alias),
    }
    if name == NEAR:
        entry["OPTIONS"] = {"copy": str(directory / _prefix(alias)), "size_limit": SIZE_LIMIT}
    elif name == LMDB:
        entry["LOCATION"] = str(directory / "lmdb")
    elif name == LOCMEM:
        entry |= {"LOCATION": "near", "OPTIONS": {"MAX_ENTRIES": 1_000_000}}
    return entry


@contextlib.contextmanager
def side_by_side(directory: Path, round_trip_s: float) -> Iterator[Peers]:
    """Start a Redis and the network, and set Django up with all caches, in this and later processes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer()).start()
        far_socket = directory / "far.sock"
        far_url = f"unix://{far_socket}?db=0"
        caches = {name: _entry(name, name, server.url, directory) for name in _BACKENDS}
        caches |= {far(name): _entry(name, far(name), far_url, directory) for name in ON_REDIS}
        (directory / "state").mkdir()
        setup = {
            "caches": {"default": caches[LOCMEM], **caches},
            "database": str(directory / "database.sqlite3"),
            "state": str(directory / "state"),
        }
        os.environ["BENCHMARK_SETUP"] = json.dumps(setup)
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.backends.shared_cache.settings"
        set_up_django()
        stack.enter_context(proxy(far_socket, server.socket, round_trip_s))
        yield Peers(server, directory, far_url)
