"""The same work for the processor alone, one by one, by threads and by processes."""

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cacheapp import clock


def count_primes(below: int) -> int:
    """Keep one core busy; nothing here waits."""
    return sum(
        all(number % by for by in range(2, int(number**0.5) + 1)) for number in range(2, below)
    )


def one_by_one(tasks: list[int]) -> list[int]:
    """Finish each task before beginning the next."""
    return [count_primes(task) for task in tasks]


def by_threads(tasks: list[int], threads: int) -> list[int]:
    """Share the tasks among threads."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(count_primes, tasks))


def by_processes(tasks: list[int], processes: int) -> list[int]:
    """Share the tasks among processes."""
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(count_primes, tasks, chunksize=1)


def measure(below: int, tasks: int, way: str, workers: int) -> "dict[str, Any]":
    """Return how long all tasks took, and which interpreter it was."""
    work = [below] * tasks
    began_s = clock.monotonic_s()
    if way == "one by one":
        found = one_by_one(work)
    else:
        found = (by_threads if way == "threads" else by_processes)(work, workers)
    took_s = clock.monotonic_s() - began_s
    if len(set(found)) != 1 or len(found) != tasks:
        raise ValueError(f"{way}: {found} from {tasks} equal tasks; expected as many equal results")
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {"seconds": took_s, "gil": gil}
