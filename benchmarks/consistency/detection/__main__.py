"""Measure how much `cachecheck` finds, and whether it accuses a right cache: for each release.

`python -m benchmarks.consistency.detection results.jsonl`: checks each broken cache of the held-out set ten
times with `--seconds 2`, and each right one of ours fifty times, with less for each workload, while other
processes keep the processors busy. Each run is a line of the file; one that was interrupted continues there.
Of the runs of a right cache, one in ten also stops, kills and starts processes. Exit status 1: one is found in
fewer than nine of ten runs, a right one is accused, or some runs could not be made.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring.report import progress, set_up_django
from tests.integration.cachecheck.held_out import HELD_OUT

_ENOUGH = 0.9
_ATTEMPTS = 5
"""On a machine under load, processes may take too long to start: the runs that are missing are tried again."""


def main() -> int:
    """Make the runs that the file lacks; print a line for each cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("results", type=Path, help="a line of JSON for each run; those in it are not made again")
    add("--only", action="append", help="a cache, or 'right' or 'broken'; may be repeated")
    add("--runs", type=int, default=10, help="of each broken cache (default 10)")
    add("--right-runs", type=int, default=50, help="of each right cache (default 50)")
    add("--seconds", type=float, default=2.0, help="of each workload, broken caches (default 2)")
    add("--right-seconds", type=float, default=0.3, help="the same of right ones (default 0.3)")
    add("--lanes", type=int, default=2, help="checks at the same time (default 2)")
    add("--load", type=int, default=2, help="processes that compute meanwhile (default 2)")
    asked = parser.parse_args()
    set_up_django("benchmarks.backends.stock_settings")
    with _busy(asked.load):
        for _ in range(_ATTEMPTS):
            if complete := _fill(asked):
                break
    missed = _show(_read(asked.results), asked.only)
    if not complete:
        print("Incomplete: some runs could not be made. The same command tries them again.")
    return int(missed or not complete)


def _fill(asked: argparse.Namespace) -> bool:
    """Make the runs that are missing; return False if some could not be made."""
    from benchmarks.consistency.detection.runs import (  # noqa: PLC0415 (needs settings)
        RIGHT,
        broken,
        right,
    )

    made = {(one["kind"], one["cache"], one["run"]) for one in _read(asked.results)}

    def missing(kind: str, name: str, runs: int) -> list[int]:
        if asked.only and not {kind, name} & set(asked.only):
            return []
        return [number for number in range(runs) if (kind, name, number) not in made]

    with ThreadPoolExecutor(asked.lanes) as pool, asked.results.open("a") as file:
        guard = threading.Lock()

        def write(result: Mapping[str, object]) -> None:
            with guard:
                file.write(json.dumps(result) + "\n")
                file.flush()
            progress(
                f"{result['cache']} {result['run']}: {result.get('found', result.get('accused'))}"
            )

        batches = [
            pool.submit(right, name, numbers, asked.right_seconds, write)
            for name in RIGHT
            if (numbers := missing("right", name, asked.right_runs))
        ]
        batches += [
            pool.submit(broken, name, numbers, asked.seconds, write)
            for name in HELD_OUT
            if (numbers := missing("broken", name, asked.runs))
        ]
        failed = [str(error) for batch in batches if (error := batch.exception())]
    for each in failed:
        progress(each)
    return not failed


def _read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _show(results: Sequence[dict[str, object]], only: Sequence[str] | None) -> bool:
    """Print a line for each cache; return whether one of them misses the goal."""
    missed = 0
    for name in dict.fromkeys(str(one["cache"]) for one in results):
        own = [one for one in results if one["cache"] == name]
        if only and not {name, str(own[0]["kind"])} & set(only):
            continue
        loads = statistics.median(float(str(one["load"])) for one in own)
        if own[0]["kind"] == "broken":
            found = [str(one["found"]) for one in own if one["found"]]
            missed += len(found) < _ENOUGH * len(own)
            by = ", ".join(f"{each} {found.count(each)}" for each in dict.fromkeys(found))
            print(f"{name}: found in {len(found)} of {len(own)} (load {loads:.0f}): {by}")
        else:
            accused = sum(bool(one["accused"]) for one in own)
            unknown = sum(bool(one["unknown"]) for one in own)
            missed += accused
            print(
                f"{name}: accused in {accused} of {len(own)}, unknown in {unknown} (load {loads:.0f})"
            )
    return missed > 0


def _compute() -> None:
    os.nice(5)
    while True:
        pass


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep processors busy."""
    spawn = multiprocessing.get_context("spawn")
    burners = [spawn.Process(target=_compute, daemon=True) for _ in range(count)]
    for one in burners:
        one.start()
    try:
        yield
    finally:
        for one in burners:
            one.kill()
            one.join()


if __name__ == "__main__":
    sys.exit(main())
