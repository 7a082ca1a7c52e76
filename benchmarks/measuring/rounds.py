"""Variants take turns, so that whatever else the machine does meets all of them alike."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

from benchmarks.measuring.report import progress

Call = Callable[[], object]
Turn = Callable[[], Iterable[float]]
Samples = dict[str, dict[str, list[float]]]
"""By operation and variant."""


def take_turns(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Return all samples of each variant. Every other round goes backwards.

    So no variant always comes after the same other one, and inherits what that left behind.
    """
    samples: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns) if number % 2 else list(turns)[::-1]:
            samples[name] += turns[name]()
    return samples


def time_calls(call: Call, times: int, within_s: float = math.inf) -> list[float]:
    """Return the microseconds of each call, less what reading the clock costs.

    Ends early, after at least one call, when `within_s` is over: slow variants give fewer samples.
    """
    return [max(0.0, took - clock_us()) for took in _time_raw(call, times, within_s)]


def _time_raw(call: Call, times: int, within_s: float) -> list[float]:
    now = time.perf_counter_ns
    took = []
    ends = now() + within_s * 1e9
    for _ in range(times):
        began = now()
        call()
        ended = now()
        took.append((ended - began) / 1000)
        if ended > ends:
            break
    return took


@functools.cache
def clock_us() -> float:
    """Return what an empty call takes by this clock: on virtual machines a good part of a `get`."""
    return statistics.median(_time_raw(lambda: None, 5000, math.inf))


def compare_calls(
    variants: Mapping[str, Mapping[str, Call]],
    rounds: int,
    times: Callable[[str], int],
    within_s: float = math.inf,
) -> Samples:
    """Return the microseconds of each call, by operation and variant.

    Before an operation is measured, each variant does it once as long as it does in a round:
    connections, scripts and caches are then as they stay. `times(operation)` are the calls in one
    round, which takes about `within_s` at the most.
    """
    operations = dict.fromkeys(name for calls in variants.values() for name in calls)
    samples: Samples = {}
    for operation in operations:
        turns: dict[str, Turn] = {}
        each = times(operation)
        for name, calls in variants.items():
            if operation in calls:
                turns[name] = functools.partial(time_calls, calls[operation], each, within_s)
                turns[name]()
        samples[operation] = take_turns(turns, rounds)
        progress(operation)
    return samples
