"""The `a…` methods: each runs its whole sync twin, and so makes the same promise.

Values other than plain data are serialized where Django's own backends serialize them: in the
thread of `sync_to_async(thread_sensitive=True)`.

Django's base class builds some of them (`aincr`, `aincr_version`, the `_many` methods) from `aget`
and `aset`, which loses updates and deadlines.
"""

import abc
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from cacheapp.backends.core.plain_data import are_plain
from cacheapp.backends.core.timeouts import Lifetime

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a sync function in one of asyncio's threads; return its result.

    Not thread-sensitive: the caches are thread-safe, and one slow call must not delay all others
    of the event loop.
    """
    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


async def where_django_would(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a sync function in the thread that runs the sync code of this request.

    There the database connections are those of the request: they see its transaction, and are
    closed when it ends.
    """
    return await sync_to_async(function, thread_sensitive=True)(*args, **kwargs)


class AsyncMethods(BaseCache, abc.ABC):
    """A cache whose async methods run its sync ones.

    The abstract methods are those that have an async twin here and that Django's base class lacks.
    """

    async def _run_read(self, method: Callable[..., T], *args: Any) -> T:
        """Return the result of a method that only reads."""
        return await in_thread(method, *args)

    async def _run_write(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return the result of a method that may write."""
        return await in_thread(method, *args, **kwargs)

    async def _run_storing(
        self, values: Iterable[Any], method: Callable[..., T], *args: Any, **kwargs: Any
    ) -> T:
        """Return the result of a method that stores the values.

        If serializing them may run other code, the method runs where Django's own backends run it.
        """
        if are_plain(values):
            return await self._run_write(method, *args, **kwargs)
        return await where_django_would(method, *args, **kwargs)

    # -- Django's API ------------------------------------------------------------------------

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
        nx: bool = False,
        xx: bool = False,
    ) -> Any:
        how = {"stale": stale, "jitter": jitter, "nx": nx, "xx": xx}
        return await self._run_storing([value], self.set, key, value, timeout, version, **how)

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> bool:
        return await self._run_storing([value], self.add, key, value, timeout, version)

    async def atouch(
        self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return await self._run_write(self.touch, key, timeout, version)

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self._run_write(self.delete, key, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self._run_read(self.has_key, key, version)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self._run_write(self.incr, key, delta, version)

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self._run_write(self.decr, key, delta, version)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self._run_write(self.incr_version, key, delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self._run_write(self.decr_version, key, delta, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return await self._run_read(self.get_many, keys, version)

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        return await self._run_storing(data.values(), self.set_many, data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self._run_write(self.delete_many, keys, version)

    async def aclear(self) -> None:
        await self._run_write(self.clear)

    # -- django-redis's API ------------------------------------------------------------------

    @abc.abstractmethod
    def ttl(self, key: Any, version: int | None = None) -> int | None: ...

    @abc.abstractmethod
    def pttl(self, key: Any, version: int | None = None) -> int | None: ...

    @abc.abstractmethod
    def expire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool: ...

    @abc.abstractmethod
    def pexpire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool: ...

    @abc.abstractmethod
    def expire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool: ...

    @abc.abstractmethod
    def pexpire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool: ...

    @abc.abstractmethod
    def persist(self, key: Any, version: int | None = None) -> bool: ...

    @abc.abstractmethod
    def keys(self, search: str, version: int | None = None) -> list[str]: ...

    @abc.abstractmethod
    def delete_pattern(self, pattern: str, version: int | None = None) -> int: ...

    async def attl(self, key: Any, version: int | None = None) -> int | None:
        return await self._run_read(self.ttl, key, version)

    async def apttl(self, key: Any, version: int | None = None) -> int | None:
        return await self._run_read(self.pttl, key, version)

    async def aexpire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool:
        return await self._run_write(self.expire, key, timeout, version)

    async def apexpire(self, key: Any, timeout: Lifetime, version: int | None = None) -> bool:
        return await self._run_write(self.pexpire, key, timeout, version)

    async def aexpire_at(
        self, key: Any, when: datetime | float, version: int | None = None
    ) -> bool:
        return await self._run_write(self.expire_at, key, when, version)

    async def apexpire_at(
        self, key: Any, when: datetime | float, version: int | None = None
    ) -> bool:
        return await self._run_write(self.pexpire_at, key, when, version)

    async def apersist(self, key: Any, version: int | None = None) -> bool:
        return await self._run_write(self.persist, key, version)

    async def akeys(self, search: str, version: int | None = None) -> list[str]:
        return await in_thread(self.keys, search, version)  # may take long on any store

    async def adelete_pattern(self, pattern: str, version: int | None = None) -> int:
        return await in_thread(self.delete_pattern, pattern, version)
