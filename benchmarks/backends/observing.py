"""What a subscriber to operations costs LMDBCache: `python -m benchmarks.backends.observing`.

Variants take turns, a slice of calls each, in one process: a class that was never observed; one that was,
until the turn began; one with a subscriber that does nothing; one with the counter of `CACHEAPP["METRICS"]`.
The time is that of the thread's CPU, which other programs do not add to. All write to the same cache.
"""

import contextlib
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from benchmarks.measuring import (
    Call,
    Samples,
    command_line,
    progress,
    set_up_django,
    summaries,
    table,
    take_turns,
    write_report,
)
from benchmarks.measuring.values import KEYS, MANY, VALUE

NEVER, ENDED, EMPTY, COUNTING = ("never observed", "no longer observed", "observed", "counted")
GOAL_ENDED = 1.02
GOAL_COUNTING_US = 1.0
Subscribe = Callable[[], Callable[[], None]]


def main() -> int:
    """Measure, print the medians and whether each meets its goal, and return 0."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--calls", type=int, default=2000, help="per variant and round")
    asked = parser.parse_args()
    set_up_django()
    with tempfile.TemporaryDirectory() as directory:
        never, observed = _two_caches(directory)
        variants = {
            NEVER: (never, None),
            ENDED: (observed, None),
            EMPTY: (observed, _observe),
            COUNTING: (observed, _count),
        }
        samples: Samples = {}
        for operation, call_of in CALLS.items():
            turns = {
                name: functools.partial(_turn, call_of(cache), asked.calls, subscribe)
                for name, (cache, subscribe) in variants.items()
            }
            take_turns(turns, 1)  # everything is opened and compiled
            samples[operation] = take_turns(turns, asked.rounds)
            progress(operation)
    results = summaries(samples)
    judged = _judged(samples)
    print(*table("microseconds of CPU", results, NEVER), sep="\n")
    print(f"get, no longer observed: x{judged['get_no_longer_observed']:.4f}; goal: {GOAL_ENDED}")
    print(f"counting adds, in microseconds: {judged['counting_adds_us']}; goal: {GOAL_COUNTING_US}")
    figures = {**judged, "microseconds": results, "samples": samples}
    write_report(asked.json, "backends.observing", ["Django", "lmdb"], figures)
    return 0


CALLS: dict[str, Callable[[Any], Call]] = {
    "get": lambda cache: lambda: cache.get("value"),
    "get, missing": lambda cache: lambda: cache.get("nothing"),
    "set": lambda cache: lambda: cache.set("value", VALUE),
    "incr": lambda cache: lambda: cache.incr("count"),
    "get_or_set, hit": lambda cache: lambda: cache.get_or_set("value", dict),
    "get_many 10": lambda cache: lambda: cache.get_many(KEYS[:10]),
}


def _two_caches(directory: str) -> tuple[Any, Any]:
    """Return a cache of a class that no subscriber reaches, and one of a class that it does."""
    from cacheapp.backends import LMDBCache  # noqa: PLC0415 (needs the settings)

    class Unobserved(LMDBCache):
        pass

    class Observed(LMDBCache):
        pass

    with mock.patch("cacheapp.backends.core.shared.watch"):
        never = Unobserved(directory, {})
    observed = Observed(directory, {})
    never.set_many({**MANY, "value": VALUE, "count": 1}, timeout=None)
    return never, observed


def _observe() -> Callable[[], None]:
    from cacheapp.telemetry import subscribe  # noqa: PLC0415 (needs the settings)

    return subscribe(lambda _operation: None)


def _count() -> Callable[[], None]:
    from cacheapp.telemetry import subscribe  # noqa: PLC0415 (needs the settings)
    from cacheapp.telemetry.operation_counts import OperationCounts  # noqa: PLC0415

    return subscribe(OperationCounts().count)


def _turn(call: Call, times: int, subscribe: Subscribe | None) -> list[float]:
    """Return the CPU time of a call in microseconds: the mean of a slice."""
    with contextlib.ExitStack() as stack:
        if subscribe is not None:
            stack.callback(subscribe())
        call()
        began = time.thread_time_ns()
        for _ in range(times):
            call()
        return [(time.thread_time_ns() - began) / times / 1000]


def _judged(samples: Samples) -> dict[str, Any]:
    """Return the medians of the rounds' own ratios and differences."""
    return {
        "get_no_longer_observed": statistics.median(
            ended / never
            for ended, never in zip(samples["get"][ENDED], samples["get"][NEVER], strict=True)
        ),
        "counting_adds_us": {
            operation: statistics.median(
                counted - never
                for counted, never in zip(by_name[COUNTING], by_name[NEVER], strict=True)
            )
            for operation, by_name in samples.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
