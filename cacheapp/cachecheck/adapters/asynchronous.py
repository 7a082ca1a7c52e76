"""Adapters of asynchronous cache libraries: cashews and aiocache.

They are used by one thread of each process, in one event loop, as a worker of an ASGI server does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cacheapp.cachecheck.adapters.base import Adapter, without


class CashewsAdapter(Adapter):
    """`cashews.cache`, or a `cashews.Cache` of its own."""

    asynchronous = True
    creates_counters = True

    async def aget(self, key: str, default: Any = None) -> Any:
        """Read."""
        return await self.subject.get(key, default)

    async def aset(self, key: str, value: Any, timeout: float) -> Any:
        """Write."""
        return await self.subject.set(key, value, expire=timeout)

    async def aadd(self, key: str, value: Any, timeout: float) -> bool:
        """Write if absent."""
        return bool(await self.subject.set(key, value, expire=timeout, exist=False))

    async def adelete(self, key: str) -> bool | None:
        """Remove."""
        found = await self.subject.delete(key)
        return None if found is None else bool(found)

    async def aincr(self, key: str, delta: int = 1) -> int:
        """Add to a number."""
        return int(await self.subject.incr(key, delta))

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read several."""
        return without(dict(zip(keys, await self.subject.get_many(*keys), strict=True)))

    async def aset_many(self, values: Mapping[str, Any], timeout: float) -> None:
        """Write several."""
        await self.subject.set_many(dict(values), expire=timeout)

    async def aget_or_set(self, key: str, default: Callable[[], Any], timeout: float) -> Any:
        """Read, or compute and write."""
        return await self.subject.get_or_set(key, default, expire=timeout)

    async def aclear(self) -> None:
        """Remove everything."""
        await self.subject.clear()


class AiocacheAdapter(Adapter):
    """A cache of aiocache, as `aiocache.Cache(…)` makes it."""

    asynchronous = True
    creates_counters = True

    async def aget(self, key: str, default: Any = None) -> Any:
        """Read."""
        return await self.subject.get(key, default=default)

    async def aset(self, key: str, value: Any, timeout: float) -> Any:
        """Write."""
        return await self.subject.set(key, value, ttl=timeout)

    async def aadd(self, key: str, value: Any, timeout: float) -> bool:
        """Write if absent; the library raises `ValueError` for a key that exists."""
        try:
            await self.subject.add(key, value, ttl=timeout)
        except ValueError:
            return False
        return True

    async def adelete(self, key: str) -> bool:
        """Remove."""
        return bool(await self.subject.delete(key))

    async def atouch(self, key: str, timeout: float) -> bool:
        """Change the timeout."""
        return bool(await self.subject.expire(key, ttl=timeout))

    async def aincr(self, key: str, delta: int = 1) -> int:
        """Add to a number."""
        return int(await self.subject.increment(key, delta))

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read several."""
        return without(dict(zip(keys, await self.subject.multi_get(list(keys)), strict=True)))

    async def aset_many(self, values: Mapping[str, Any], timeout: float) -> None:
        """Write several."""
        await self.subject.multi_set(list(values.items()), ttl=timeout)

    async def aclear(self) -> None:
        """Remove everything."""
        await self.subject.clear()
