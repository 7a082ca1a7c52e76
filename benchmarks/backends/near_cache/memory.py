"""What four workers and their copies take with 100,000 entries of 1 KiB that all of them have read.

The server's memory does not count: it is the same for all.
"""

import functools
import random
from typing import Any

from django.core.cache import caches

from benchmarks.backends.near_cache.goals import ONE_COPY
from benchmarks.backends.near_cache.peers import LASTING, NEAR, Peers
from benchmarks.backends.shared_cache.crew import Crew
from benchmarks.backends.shared_cache.memory import cached_bytes, private_bytes
from benchmarks.measuring import progress
from cacheapp.backends import RedisCache

_KIB = 1024
_BATCH = 1000
_TOGETHER = 100


def measure(peers: Peers, entries: int, workers: int) -> dict[str, list[float]]:
    """Return the MiB that were added, by cache."""
    for name in (NEAR, LASTING):
        _fill(peers, name, entries)
    found = {name: [_growth(peers, name, entries, workers)] for name in (NEAR, LASTING)}
    return {**found, ONE_COPY: [entries * _KIB / 2**20]}


def _fill(peers: Peers, name: str, entries: int) -> None:
    """Store the entries as another machine."""
    redis = RedisCache(peers.server.url, {"KEY_PREFIX": peers.prefix(name)})
    source = random.Random(1)
    for start in range(0, entries, _BATCH):
        numbers = range(start, min(start + _BATCH, entries))
        redis.set_many({f"entry-{n}": source.randbytes(_KIB) for n in numbers}, None)


def _growth(peers: Peers, name: str, entries: int, workers: int) -> float:
    directory = peers.directory / peers.prefix(name)
    with Crew(workers) as crew:
        crew.together(read, name, 2 * _TOGETHER)

        def taken() -> int:
            own = sum(map(functools.partial(private_bytes, without=directory), crew.pids))
            return own + (cached_bytes(directory) if directory.exists() else 0)

        before = taken()
        crew.together(read, name, entries)
        crew.together(read, name, entries)  # also what another worker has copied meanwhile
        found = taken() - before
    progress(f"memory of {name}")
    return found / 2**20


def read(name: str, entries: int) -> None:
    """Get all entries; from NearCache several at once, which fills its copy in fewer steps."""
    cache: Any = caches[name]
    for start in range(0, entries, _TOGETHER):
        keys = [f"entry-{number}" for number in range(start, min(start + _TOGETHER, entries))]
        if name == NEAR:
            cache.get_many(keys)
        else:
            for key in keys:
                cache.get(key)
