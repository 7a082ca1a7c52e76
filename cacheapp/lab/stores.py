"""The caches that experiments compare, in private stores: a directory and a Redis."""

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from cacheapp.processes.servers import RedisServer, find_redis_server

BACKENDS = {
    "locmem": "django.core.cache.backends.locmem.LocMemCache",
    "disk": "cacheapp.backends.DiskCache",
    "lmdb": "cacheapp.backends.LMDBCache",
    "redis": "cacheapp.backends.RedisCache",
}


class Stores:
    """A context with private stores; without a redis-server, `notes` has a remark."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._redis: RedisServer | None = None
        self._directory = Path()
        self.notes: tuple[str, ...] = ()

    @property
    def aliases(self) -> list[str]:
        """The aliases that can be used here."""
        return [alias for alias in BACKENDS if alias != "redis" or self._redis]

    def location(self, alias: str) -> str:
        """Return a fresh `LOCATION` for an alias: a new directory, the Redis emptied."""
        if alias == "redis" and self._redis:
            with self._redis.client() as client:
                client.flushall()
            return self._redis.url
        if alias == "locmem":
            return "lab"
        return str(self.new_directory(alias))

    def new_directory(self, name: str) -> Path:
        """Return a new directory, which is removed at the end."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))

    def __enter__(self) -> Self:
        self._directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-"))
        )
        if find_redis_server() is None:
            self.notes = ("No Redis server is available, so `redis` was not measured.",)
        else:
            self._redis = self._stack.enter_context(RedisServer()).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
