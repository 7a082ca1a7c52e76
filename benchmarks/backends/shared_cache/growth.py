"""What a `get` takes as entries grow more: random ones of a thousand to millions."""

import functools
import gc
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string

from benchmarks.backends.shared_cache import goals
from benchmarks.backends.shared_cache.peers import entry_in
from benchmarks.measuring import Samples, Turn, progress, take_turns, time_calls

_VALUE = "x" * 100
_BATCH = 1000
_BYTES_EACH = 600
_LEAST_BYTES = 2**28
_DRAWN = 100_000


def measure(
    names: Sequence[str], sizes: Sequence[int], directory: Path, rounds: int, times: int
) -> Samples:
    """Return the microseconds of each `get`, by number of entries and cache; all sizes take turns."""
    samples: Samples = {goals.growth_row(size): {} for size in sizes}
    for name in names:
        turns = {}
        for size, row in zip(sizes, samples, strict=True):
            turns[row] = _gets(_filled(name, directory / f"{name}-{size}", size), size, times)
            turns[row]()
            progress(f"{name} has {size:,} entries")
        # The collector would walk what was filled, in the middle of a turn.
        gc.collect()
        gc.freeze()
        for row, found in take_turns(turns, rounds).items():
            samples[row][name] = found
    return samples


def _filled(name: str, directory: Path, size: int) -> Any:
    """Return a cache of its own with so many entries."""
    entry = entry_in(name, directory, max(_LEAST_BYTES, size * _BYTES_EACH))
    backend, location = entry.pop("BACKEND"), entry.pop("LOCATION")
    cache = import_string(backend)(location, entry)
    for at in range(0, size, _BATCH):
        cache.set_many({f"entry-{n}": _VALUE for n in range(at, min(size, at + _BATCH))})
    if cache.get("entry-0") != _VALUE or cache.get(f"entry-{size - 1}") != _VALUE:
        raise RuntimeError(f"{name} does not hold {size:,} entries")
    return cache


def _gets(cache: Any, size: int, times: int) -> Turn:
    draw = random.Random(size)
    keys = itertools.cycle([f"entry-{draw.randrange(size)}" for _ in range(min(size, _DRAWN))])
    get, following = cache.get, keys.__next__
    return functools.partial(time_calls, lambda: get(following()), times)
