"""One call after the other, in one process and one thread."""

import asyncio
import functools
import time
from collections.abc import Sequence
from typing import Any

from django.core.cache import caches

from benchmarks.backends.shared_cache import goals
from benchmarks.measuring import Call, Samples, Turn, clock_us, compare_calls, progress, take_turns
from benchmarks.measuring.values import KEYS, request_of

SMALL = {"id": 17, "name": "a user", "roles": ["editor", "author"], "active": True}
VALUES: dict[str, object] = {
    "small dict": SMALL,
    "100-byte str": "x" * 100,
    "4 KiB": bytes(range(256)) * 16,
    "64 KiB": bytes(range(256)) * 256,
}
_TURN_S = 0.03
"""How long a slow cache's turn may take; fast ones do all their calls in it."""


def measure(names: Sequence[str], rounds: int, times: int) -> Samples:
    """Return the microseconds of each call, by operation and cache."""
    variants = {name: _calls(caches[name]) for name in names}
    samples = compare_calls(variants, rounds, lambda _operation: times, _TURN_S)
    with asyncio.Runner() as runner:
        turns = {name: _aget_turn(runner, caches[name], times) for name in names}
        for turn in turns.values():
            turn()
        samples[goals.AGET_CALL] = take_turns(turns, rounds)
    progress(goals.AGET_CALL)
    return samples


def _calls(cache: Any) -> dict[str, Call]:
    """Return what is measured of one cache. Keys that are read or counted are there before."""
    keys = {what: what.replace(" ", "-") for what in VALUES}  # memcached takes no spaces
    cache.set_many({keys[what]: value for what, value in VALUES.items()})
    cache.set_many({**dict.fromkeys(KEYS, SMALL), "count": 1})
    gets = {f"get, {what}": functools.partial(cache.get, keys[what]) for what in VALUES}
    sets = {
        f"set, {what}": functools.partial(cache.set, keys[what], value)
        for what, value in VALUES.items()
    }
    return {
        **gets,
        "get, missing": functools.partial(cache.get, "nothing"),
        **sets,
        "incr": functools.partial(cache.incr, "count"),
        "request": request_of(cache, KEYS, SMALL),
    }


def _aget_turn(runner: asyncio.Runner, cache: Any, times: int) -> Turn:
    """Return a turn of `await cache.aget(...)`, one after the other in a running event loop."""

    async def turn() -> list[float]:
        took = []
        ends = time.perf_counter_ns() + _TURN_S * 1e9
        for _ in range(times):
            began = time.perf_counter_ns()
            await cache.aget("key-1")
            ended = time.perf_counter_ns()
            took.append(max(0.0, (ended - began) / 1000 - clock_us()))
            if ended > ends:
                break
        return took

    return lambda: runner.run(turn())
