"""django-redis's extended API, on every shared backend, so that code written for one runs on all."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.cache.backends.base import default_key_func

from cacheapp import clock
from cacheapp.backends.core.async_methods import AsyncMethods, in_thread
from cacheapp.backends.core.store import Store
from cacheapp.errors import ClearRefused


class ExtendedCache(AsyncMethods):
    """Mix-in: deadlines of single keys, listing and removing by pattern, and their `async` twins."""

    _store: Store

    def ttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the whole seconds left; `None` without a deadline, 0 where the key is missing."""
        left = self._store.ttl(self.make_and_validate_key(key, version=version))
        return None if left is None else int(left)

    def pttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the milliseconds left; `None` without a deadline, 0 where the key is missing."""
        left = self._store.ttl(self.make_and_validate_key(key, version=version))
        return None if left is None else int(left * 1000)

    def expire(self, key: Any, timeout: float, version: int | None = None) -> bool:
        """Give the key a timeout in seconds; return whether it was there."""
        return self.touch(key, timeout, version=version)

    def pexpire(self, key: Any, timeout: float, version: int | None = None) -> bool:
        """Give the key a timeout in milliseconds; return whether it was there."""
        return self.touch(key, timeout / 1000, version=version)

    def expire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool:
        """Give the key a deadline, a `datetime` or seconds since 1970; return whether it was there."""
        deadline = when.timestamp() if isinstance(when, datetime) else when
        return self.touch(key, deadline - clock.wall_s(), version=version)

    def pexpire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool:
        """Give the key a deadline, a `datetime` or milliseconds since 1970."""
        deadline = when if isinstance(when, datetime) else when / 1000
        return self.expire_at(key, deadline, version=version)

    def persist(self, key: Any, version: int | None = None) -> bool:
        """Take the deadline away; return whether the key was there and had one."""
        return self._store.persist(self.make_and_validate_key(key, version=version))

    def iter_keys(
        self, search: str, version: int | None = None, itersize: int = 1000
    ) -> Iterator[str]:
        """Yield the keys of one version that match a glob: `*`, `?`, `[a-z]`, `[^a]`, backslash."""
        prefix = self._listing_prefix("iter_keys", version)
        for final in self._store.scan(prefix, search, itersize):
            yield final[len(prefix) :]

    def keys(self, search: str, version: int | None = None) -> list[str]:
        """Return the keys of one version that match a glob."""
        return list(self.iter_keys(search, version=version))

    def delete_pattern(self, pattern: str, version: int | None = None, itersize: int = 1000) -> int:
        """Remove the keys of one version that match a glob; return how many. Not one instant."""
        prefix = self._listing_prefix("delete_pattern", version)
        return self._store.remove(prefix, pattern, itersize)

    def _listing_prefix(self, asked: str, version: int | None) -> str:
        """Return what every final key of the version begins with."""
        if self.key_func is not default_key_func:
            raise ClearRefused(
                f"{asked}() needs Django's default KEY_FUNCTION: with another one, the keys of "
                "this alias cannot be told from others'; nothing was done"
            )
        return self.make_key("", version=version)

    async def attl(self, key: Any, version: int | None = None) -> int | None:
        result: int | None = await self._run_read(self.ttl, key, version)
        return result

    async def apttl(self, key: Any, version: int | None = None) -> int | None:
        result: int | None = await self._run_read(self.pttl, key, version)
        return result

    async def aexpire(self, key: Any, timeout: float, version: int | None = None) -> bool:
        result: bool = await self._run_write(self.expire, key, timeout, version)
        return result

    async def apexpire(self, key: Any, timeout: float, version: int | None = None) -> bool:
        result: bool = await self._run_write(self.pexpire, key, timeout, version)
        return result

    async def aexpire_at(
        self, key: Any, when: datetime | float, version: int | None = None
    ) -> bool:
        result: bool = await self._run_write(self.expire_at, key, when, version)
        return result

    async def apexpire_at(
        self, key: Any, when: datetime | float, version: int | None = None
    ) -> bool:
        result: bool = await self._run_write(self.pexpire_at, key, when, version)
        return result

    async def apersist(self, key: Any, version: int | None = None) -> bool:
        result: bool = await self._run_write(self.persist, key, version)
        return result

    async def akeys(self, search: str, version: int | None = None) -> list[str]:
        result: list[str] = await in_thread(self.keys, search, version)
        return result

    async def adelete_pattern(self, pattern: str, version: int | None = None) -> int:
        result: int = await in_thread(self.delete_pattern, pattern, version)
        return result
