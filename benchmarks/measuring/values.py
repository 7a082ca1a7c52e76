"""Values and calls that several benchmarks measure, so that their figures mean the same."""

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.rounds import Call

VALUE = {"name": "a user", "numbers": list(range(20)), "text": "x" * 200}
LARGE = b"x" * 50_000
KEYS = [f"key-{n}" for n in range(100)]
MANY = dict.fromkeys(KEYS, VALUE)


def usual_calls(cache: Any) -> dict[str, Call]:
    """Store what is read, and return the calls that every cache has."""
    cache.set_many({**MANY, "value": VALUE, "count": 1})
    return {
        "get": lambda: cache.get("value"),
        "set": lambda: cache.set("value", VALUE),
        "incr": lambda: cache.incr("count"),
        **many_calls(cache),
    }


def many_calls(cache: Any) -> dict[str, Call]:
    """Return the calls with 100 keys at once."""
    return {
        "get_many 100": lambda: cache.get_many(KEYS),
        "set_many 100": lambda: cache.set_many(MANY),
    }


def request_of(cache: Any, keys: Sequence[str], value: object) -> Call:
    """Return what a request does: 20 gets, 2 sets, and `close()`, which Django calls at its end."""

    def request() -> None:
        for key in keys[:20]:
            cache.get(key)
        cache.set(keys[1], value)
        cache.set(keys[2], value)
        cache.close()

    return request
