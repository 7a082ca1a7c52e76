"""The `a…` methods: each runs its sync twin whole, in a thread, and so promises the same.

Django's base class rebuilds some of them (`aincr`, `aincr_version`, the `_many` calls) from `aget`
and `aset`, which loses updates and deadlines. `thread_sensitive=False`, because these caches are
safe under threads: one slow call must not hold up all others of the event loop.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache


async def in_thread(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a sync method of a cache in one of asyncio's threads; return its result."""
    return await sync_to_async(method, thread_sensitive=False)(*args, **kwargs)


class AsyncMethods(BaseCache):
    """Mix-in: an `async` twin for every method of `SharedCache`."""

    async def _run_read(self, method: Callable[..., Any], *args: Any) -> Any:
        """Return what a method that only reads returns."""
        return await in_thread(method, *args)

    async def _run_write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a method that may write returns."""
        return await in_thread(method, *args, **kwargs)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await self._run_read(self.get, key, default, version)

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
        await self._run_write(self.set, key, value, timeout, version, stale=stale, jitter=jitter)

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        result: bool = await self._run_write(self.add, key, value, timeout, version)
        return result

    async def atouch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        result: bool = await self._run_write(self.touch, key, timeout, version)
        return result

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        result: bool = await self._run_write(self.delete, key, version)
        return result

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        result: bool = await self._run_read(self.has_key, key, version)
        return result

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._run_write(self.incr, key, delta, version)
        return result

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._run_write(self.decr, key, delta, version)
        return result

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._run_write(self.incr_version, key, delta, version)
        return result

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        result: int = await self._run_write(self.decr_version, key, delta, version)
        return result

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        result: dict[Any, Any] = await self._run_read(self.get_many, keys, version)
        return result

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        result: list[Any] = await self._run_write(self.set_many, data, timeout, version)
        return result

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self._run_write(self.delete_many, keys, version)

    async def aclear(self) -> None:
        await self._run_write(self.clear)
