"""What the check needs to know about a subject: the methods it has, and how these differ from Django's."""

import re
from collections.abc import Mapping
from typing import Any

OPERATIONS = (
    *("get", "set", "add", "delete", "touch", "incr", "decr", "get_many", "set_many"),
    *("get_or_set", "incr_version", "lock", "clear"),
)
TIMEOUT, CREATES, ASYNC = "timeout", "creates counters", "async"
"""Abilities beside the methods: timeouts of keys; `incr` of a missing key creates it; only `a…` methods."""

_NUMBER = re.compile(rb"-?\d{1,18}")


class Adapter:
    """A subject of the check. A subclass has those of Django's methods that its library has.

    `timeouts`: whether `set` accepts a timeout. `creates_counters`: whether `incr` creates a missing
    key. `asynchronous`: whether only the methods with the prefix `a` exist.
    """

    timeouts = True
    creates_counters = False
    asynchronous = False

    def __init__(self, subject: Any) -> None:
        self.subject = subject


def abilities(cache: Any, *, use_async: bool = False) -> frozenset[str]:
    """Return the names in `OPERATIONS` that the cache has, and the other abilities.

    Any object will do; one that is not an `Adapter` is taken for a cache with Django's methods.
    """
    asynchronous = getattr(cache, "asynchronous", False)
    prefix = "a" if (asynchronous or use_async) else ""
    found = {
        name
        for name in OPERATIONS
        if callable(getattr(cache, name if name == "lock" else f"{prefix}{name}", None))
    }
    if getattr(cache, "timeouts", True):
        found.add(TIMEOUT)
    if getattr(cache, "creates_counters", False):
        found.add(CREATES)
    if asynchronous:
        found.add(ASYNC)
    return frozenset(found)


def encode(value: Any) -> bytes:
    """Return a number or text as bytes, for a store of bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


def decode(value: Any) -> Any:
    """Return the number that `encode` wrote, or the bytes."""
    if isinstance(value, str):
        value = value.encode()
    return int(value) if isinstance(value, bytes) and _NUMBER.fullmatch(value) else value


def encode_all(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the values as bytes."""
    return {key: encode(value) for key, value in values.items()}


def without(values: Mapping[str, Any], missing: Any = None) -> dict[str, Any]:
    """Return the values without those that stand for a missing key."""
    return {key: value for key, value in values.items() if value is not missing}
