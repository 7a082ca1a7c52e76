"""The `a…` methods of a store that answers in microseconds: called straight through.

A hop to a thread and back costs twenty times what a read does. A write waits for nobody unless
another one is under way, perhaps in a process that was stopped: then a thread waits for it, and the
event loop goes on. Whether one is under way is a hint (`marks.BUSY`): in the moment between the
look and the write another writer may begin, and holds the loop up for as long as one write takes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.twins import AsyncTwins, in_thread


class InlineTwins(AsyncTwins):
    """Mix-in: the twins of what is called most. The others go to a thread, as anywhere."""

    _environment: Environment

    async def _written(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._environment.is_busy():
            return await in_thread(method, *args, **kwargs)
        return method(*args, **kwargs)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self.get(key, default, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return self.has_key(key, version)

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        stale: float = 0,
        jitter: float = 0,
    ) -> None:
        await self._written(self.set, key, value, timeout, version, stale=stale, jitter=jitter)

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        result: bool = await self._written(self.add, key, value, timeout, version)
        return result

    async def atouch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        result: bool = await self._written(self.touch, key, timeout, version)
        return result

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        result: bool = await self._written(self.delete, key, version)
        return result

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._written(self.incr, key, delta, version)
        return result

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._written(self.decr, key, delta, version)
        return result

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._written(self.incr_version, key, delta, version)
        return result

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._written(self.decr_version, key, delta, version)
        return result

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        result: list[Any] = await self._written(self.set_many, data, timeout, version)
        return result

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self._written(self.delete_many, keys, version)
