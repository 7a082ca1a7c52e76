"""Helpers of the tests of `limit()` and `@throttle`: a clock, and variants of a cache."""

from typing import Any

from django.core.cache import caches

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache

LONG_S = 1e9  # the next window of this length begins in the year 2033


class Now:
    """The wall clock, in a window of 60 s that has just begun."""

    def __init__(self) -> None:
        self.wall_s = clock.wall_s() // 60 * 60

    def __call__(self) -> float:
        return self.wall_s


def variant(cache: SharedCache, mixin: type) -> Any:
    """Put a variant of the cache, on the same store, behind the alias `variant`."""
    kind: Any = type("Variant", (mixin, type(cache)), {})
    made = kind.__new__(kind)
    vars(made).update(vars(cache))
    caches["variant"] = made  # for this thread, which is all that the test needs
    return made
