"""The placeholder for a backend whose package is not installed."""

from collections.abc import Mapping
from typing import Any, ClassVar

from cacheapp.backends.core.options import COMMON, Option
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.core.store import Store


class NotInstalled(SharedCache):
    """A cache that reports the missing package as its only mistake; it never opens a store."""

    OPTIONS: ClassVar[Mapping[str, Option]] = COMMON
    reason: ClassVar[str]

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return the reason: other mistakes cannot be read without the package."""
        del location, params
        return [cls.reason]

    def _shared_store(self) -> Store:
        raise NotImplementedError(self.reason)  # not reached: a cache with mistakes has no store


def placeholder(name: str, reason: str) -> type[NotInstalled]:
    """Return a class with the backend's name."""
    return type(name, (NotInstalled,), {"reason": reason, "__module__": "cacheapp.backends"})
