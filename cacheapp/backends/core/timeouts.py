"""Check the timeouts of Django's API, and convert those of django-redis and TTLs of the store."""

import math
from datetime import timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

FOR_EVER_S = 1e11  # about 3,000 years: a longer timeout means no deadline, so that none overflows
_ROUNDING_S = 1e-6  # what a deadline minus a clock may exceed the timeout by


Lifetime = float | timedelta | None
"""A timeout of `expire` and `pexpire`."""


def ttl_of(timeout: Any) -> float | None:
    """Return a timeout as a TTL: seconds, 0 or less for "do not store", or `None`."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is {timeout!r}; expected None or a number of seconds")
    if timeout != timeout:  # noqa: PLR0124 (isnan refuses large integers)
        raise ValueError("timeout is nan; expected None or a number of seconds")
    return None if timeout > FOR_EVER_S else timeout


def seconds_of(timeout: Lifetime, *, per_s: int = 1) -> float | None:
    """Return a timeout of django-redis, a `timedelta` or a number of which a second has `per_s`."""
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if timeout is None or timeout is DEFAULT_TIMEOUT or per_s == 1:
        return timeout
    return timeout / per_s


def whole_seconds(left_s: float | None) -> int | None:
    """Return a TTL in seconds, rounded up: only a missing key has 0."""
    return None if left_s is None else _rounded_up(left_s)


def whole_milliseconds(left_s: float | None) -> int | None:
    """Return a TTL in milliseconds, rounded up: only a missing key has 0."""
    return None if left_s is None else _rounded_up(left_s, 1000)


def _rounded_up(left_s: float, per_s: int = 1) -> int:
    return 0 if left_s <= 0 else max(1, math.ceil((left_s - _ROUNDING_S) * per_s))
