"""Caches of other libraries, as users make them, for the check. `SUBJECT_DIR` is where they store."""

import os
from pathlib import Path
from typing import Any

import aiocache
import cachelib
import cashews
import diskcache
import diskcache_community
import flask
import flask_caching
import redis
import valkey
from dogpile.cache import make_region
from pymemcache.client.base import PooledClient


def _path(name: str) -> str:
    return str(Path(os.environ["SUBJECT_DIR"]) / name)


def dogpile_file() -> Any:
    return make_region().configure("dogpile.cache.dbm", arguments={"filename": _path("dogpile")})


def dogpile_memory() -> Any:
    return make_region().configure("dogpile.cache.memory")


def cashews_memory() -> Any:
    cache = cashews.Cache()
    cache.setup("mem://")
    return cache


def aiocache_memory() -> Any:
    return aiocache.Cache(aiocache.Cache.MEMORY)


def cachelib_files() -> Any:
    return cachelib.FileSystemCache(_path("cachelib"))


def flask_files() -> Any:
    config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": _path("flask")}
    return flask_caching.Cache(flask.Flask("subject"), config=config)


def redis_py() -> Any:
    return redis.Redis.from_url(os.environ["SUBJECT_REDIS"])


def valkey_py() -> Any:
    return valkey.Valkey.from_url(os.environ["SUBJECT_REDIS"])


def pymemcache_pool() -> Any:
    return PooledClient(("127.0.0.1", int(os.environ["SUBJECT_MEMCACHED"])))


def diskcache_cache() -> Any:
    return diskcache.Cache(_path("diskcache"))


def community_cache() -> Any:
    return diskcache_community.Cache(_path("community"))


class Files:
    """The adapter that docs/howto/check-a-cache.md shows."""

    timeouts = False

    def __init__(self) -> None:
        self._directory = Path(os.environ["SUBJECT_DIR"])

    def get(self, key: str, default: Any = None) -> Any:
        """Read the file."""
        path = self._directory / key
        return int(path.read_text() or 0) if path.exists() else default

    def set(self, key: str, value: Any, timeout: float) -> None:
        """Write the file, and not in one step."""
        del timeout
        (self._directory / key).write_text(str(value))

    def delete(self, key: str) -> None:
        """Remove the file."""
        (self._directory / key).unlink(missing_ok=True)


NOTHING = object()
