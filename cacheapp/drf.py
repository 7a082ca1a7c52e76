"""Throttle classes for Django REST framework that count exactly across all workers.

Each replaces the class of the same name in `rest_framework.throttling` and reads the same settings.
Those classes read a list of requests, append to it and write it back, so that requests at the same
moment overwrite each other's entry: 23 to 46 of 60 passed a rate of 10 per minute on RedisCache. These
count with `limit()`; see `rates` for the promises.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from cacheapp.extras import needed_for
from cacheapp.rates import limit

with needed_for("cacheapp.drf", "drf"):
    from rest_framework import throttling

__all__ = ["AnonRateThrottle", "ScopedRateThrottle", "SimpleRateThrottle", "UserRateThrottle"]


class SimpleRateThrottle(throttling.SimpleRateThrottle):  # type: ignore[misc]  # no type hints
    """The base of the others; subclasses define `get_cache_key`, and `rate` or `scope`.

    `alias`: the cache that counts, of a backend of cacheapp. It replaces the attribute `cache`.
    """

    alias = "default"
    _wait_s: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.cache is not throttling.SimpleRateThrottle.cache:
            raise ImproperlyConfigured(
                f"{cls.__qualname__}.cache is set; expected `alias`, a key of CACHES: the throttles "
                "of cacheapp.drf do not use `cache`"
            )

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count the request; return whether it is allowed. Raises the errors of the store."""
        key = None if self.rate is None else self.get_cache_key(request, view)
        if key is None:
            return True
        if self.num_requests < 1:  # "0/day" allows nothing, at any time
            return False
        found = limit(str(key), self.num_requests, self.duration, alias=self.alias)
        self._wait_s = None if found.allowed else max(1.0, found.retry_after_s)
        return found.allowed

    def wait(self) -> float | None:
        """Return the seconds until a refused client is allowed again; `None` if there is no such time."""
        return self._wait_s


class AnonRateThrottle(throttling.AnonRateThrottle, SimpleRateThrottle):  # type: ignore[misc]
    """Limits anonymous clients by their address."""


class UserRateThrottle(throttling.UserRateThrottle, SimpleRateThrottle):  # type: ignore[misc]
    """Limits users by their primary key, and anonymous clients by their address."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, SimpleRateThrottle):  # type: ignore[misc]
    """Limits by the `throttle_scope` of the view."""
