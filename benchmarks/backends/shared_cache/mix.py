"""Several processes at once on one cache: 90 % get, 10 % set, on the same thousand keys.

Rate and tail are measured one after the other: timing each call costs a fast cache more than a
slow one.
"""

import array
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from django.core.cache import caches

from benchmarks.backends.shared_cache import goals
from benchmarks.backends.shared_cache.calls import SMALL
from benchmarks.backends.shared_cache.crew import Crew
from benchmarks.measuring import Samples, Turn, clock_us, progress, quantile, take_turns

KEYS = [f"key-{n}" for n in range(1000)]
_GETS = 0.9
_OFTEN = 20  # operations between two looks at the clock
_BURNING_THREADS = 2
_PLAN = 5000
Plan = list[tuple[bool, str]]
Nanoseconds: TypeAlias = "array.array[int]"


def measure(names: Sequence[str], rounds: int, seconds: float, processes: int) -> Samples:
    """Return one figure a round: operations per second of all together, and tails in microseconds."""
    samples: Samples = {}
    with Crew(processes) as crew:
        for name in names:
            crew.together(fill, name)
        progress(f"{processes} processes have filled the caches")
        samples[goals.MIX] = _turns(names, rounds, lambda name: _rate(crew, name, seconds))
        progress(goals.MIX)
        samples[goals.MIX_TAIL] = _turns(names, rounds, lambda name: _tail(crew, name, seconds))
        progress(goals.MIX_TAIL)
    with Crew(2) as crew:
        samples[goals.BURNING_TAIL] = _turns(
            names, rounds, lambda name: _beside_burning(crew, name, seconds)
        )
        progress(goals.BURNING_TAIL)
    return samples


def _turns(
    names: Sequence[str], rounds: int, figure: Callable[[str], float]
) -> dict[str, list[float]]:
    def turn(name: str) -> Turn:
        return lambda: [figure(name)]

    return take_turns({name: turn(name) for name in names}, rounds)


def _rate(crew: Crew, name: str, seconds: float) -> float:
    return float(sum(crew.together(work, name, seconds)))


def _tail(crew: Crew, name: str, seconds: float) -> float:
    together = sorted(took for found in crew.together(timed_gets, name, seconds) for took in found)
    return _p999_us(together)


def _beside_burning(crew: Crew, name: str, seconds: float) -> float:
    # The one that burns goes on for longer, so that it is there until the last `set`.
    found, _ = crew.each([(timed_sets, name, seconds), (burn, name, seconds * 1.2 + 0.05)])
    return _p999_us(sorted(found))


def _p999_us(ordered_ns: Sequence[int]) -> float:
    return max(0.0, quantile(ordered_ns, 0.999) / 1000 - clock_us())


# -- in the processes of the crew ------------------------------------------------------------


def fill(name: str) -> None:
    """Write every key; a cache that is not shared needs that in each process."""
    caches[name].set_many(dict.fromkeys(KEYS, SMALL))


def _plan() -> Plan:
    """Return what to do, drawn anew in each process: whether to get, and the key."""
    draw = random.Random()
    return [(draw.random() < _GETS, draw.choice(KEYS)) for _ in range(_PLAN)]


def work(name: str, seconds: float) -> float:
    """Return the operations per second of this process."""
    cache = caches[name]
    plan = _plan()
    done = missed = 0
    began = now = time.perf_counter()
    while now - began < seconds:
        at = done % _PLAN
        for is_get, key in plan[at : at + _OFTEN]:
            if not is_get:
                cache.set(key, SMALL)
            elif cache.get(key) is None:
                missed += 1
        done += _OFTEN
        now = time.perf_counter()
    if missed > done / 100:
        raise RuntimeError(f"{name}: {missed} of {done} operations were misses; expected hits")
    return done / (now - began)


def timed_gets(name: str, seconds: float) -> Nanoseconds:
    """Return how long each get of the same mix took."""
    return _timed(name, seconds, _plan(), gets=True)


def timed_sets(name: str, seconds: float) -> Nanoseconds:
    """Return how long each set took, one after the other on all keys."""
    return _timed(name, seconds, [(False, key) for key in KEYS], gets=False)


def _timed(name: str, seconds: float, plan: Plan, *, gets: bool) -> Nanoseconds:
    """Follow the plan, again and again; return how long each get, or each set, took."""
    cache = caches[name]
    took = array.array("Q")
    now = time.perf_counter_ns
    ends = now() + seconds * 1e9
    for is_get, key in itertools.cycle(plan):
        began = now()
        if is_get:
            cache.get(key)
        else:
            cache.set(key, SMALL)
        ended = now()
        if is_get is gets:
            took.append(ended - began)
            if ended > ends:
                break
    return took


def burn(name: str, seconds: float) -> int:
    """Use the CPU in two threads while a third one sets; return how often it did.

    Whoever has the store's lock while its process's other threads have the interpreter's makes all
    other processes wait: that is what the tail shows.
    """
    cache = caches[name]
    ends = time.perf_counter() + seconds

    def use_cpu() -> None:
        while time.perf_counter() < ends:
            sum(range(1000))

    threads = [threading.Thread(target=use_cpu) for _ in range(_BURNING_THREADS)]
    for thread in threads:
        thread.start()
    done = 0
    while time.perf_counter() < ends:
        cache.set(KEYS[done % len(KEYS)], SMALL)
        done += 1
    for thread in threads:
        thread.join()
    return done
