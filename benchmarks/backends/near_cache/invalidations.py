"""What writes of other machines cost: how late they are known here, and what the listener computes."""

import os
import time
from pathlib import Path
from typing import Any

import redis
from django.core.cache import caches

from benchmarks.backends.near_cache.calls import is_served
from benchmarks.backends.near_cache.peers import NEAR, Peers
from benchmarks.backends.shared_cache.crew import Crew
from benchmarks.measuring import progress
from cacheapp.backends import RedisCache
from cacheapp.processes.waiting import until

_TICK_S = 0.001
_KEYS = 20_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def write(socket: str, prefix: str, per_s: int, seconds: float) -> float:
    """Write keys evenly as another machine; return how many per second were written."""
    value = b"x" * 200
    with redis.Redis(unix_socket_path=socket) as client:
        began = time.perf_counter()
        written = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * per_s) - written
            with client.pipeline(transaction=False) as batch:
                for number in range(written, written + due):
                    batch.set(f"{prefix}:1:foreign-{number % _KEYS}", value)
                batch.execute()
            written += due
            time.sleep(_TICK_S)
        return written / (time.perf_counter() - began)


def read_back(alias: str, count: int) -> list[float]:
    """Return the milliseconds from a write's acknowledgement until this machine's copy is without it."""
    near: Any = caches[alias]
    other = RedisCache(near.location, {"KEY_PREFIX": near.key_prefix})
    until(lambda: is_served(near), "the copy to be served", 30)
    lags = []
    for number in range(count):
        key = f"lag-{number}"
        other.set(key, 0)
        until(lambda key=key: _is_copied(near, key), "the copy", 30)  # type: ignore[misc]
        other.set(key, 1)
        began = time.perf_counter()
        while near.get(key) == 0:
            time.sleep(0.00005)  # as a worker that also does something else
        lags.append((time.perf_counter() - began) * 1000)
    return lags


def _is_copied(near: Any, key: str) -> bool:
    before = near.stats()["copy_hits"]
    near.get(key)
    return bool(near.stats()["copy_hits"] > before)


def lags(peers: Peers, per_s: int, count: int) -> tuple[list[float], float]:
    """Return the lags while another machine writes so many keys per second, and how many it wrote."""
    prefix = peers.prefix(NEAR)
    with Crew(1) as readers, Crew(1) as writers:
        if not per_s:
            return readers.together(read_back, NEAR, count)[0], 0.0
        seconds = 0.02 * count + 1
        (pipe,) = writers._pipes  # noqa: SLF001 (both at the same time)
        pipe.send((write, str(peers.server.socket), prefix, per_s, seconds))
        found = readers.together(read_back, NEAR, count)[0]
        return found, writers._answer(pipe)  # noqa: SLF001


def processor_share(
    pid: int, peers: Peers, per_s: int, seconds: float, *, copied: bool
) -> tuple[float, float]:
    """Return the part of a core that a process takes during foreign writes, and the writes per second.

    `copied`: another process reads the keys again and again, so that the copy has many of them.
    """
    with Crew(1) as writers, Crew(1) as readers:
        socket, prefix = str(peers.server.socket), peers.prefix(NEAR)
        writers.together(write, socket, prefix, per_s, 0.2)
        if copied:
            (pipe,) = readers._pipes  # noqa: SLF001 (both at the same time)
            pipe.send((copy_foreign_keys, NEAR, seconds + 0.5))
        before, began = _processor_s(pid), time.perf_counter()
        (rate,) = writers.together(write, socket, prefix, per_s, seconds)
        share = (_processor_s(pid) - before) / (time.perf_counter() - began)
    progress(f"{rate:,.0f} foreign writes per second")
    return share, rate


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def copy_foreign_keys(alias: str, seconds: float) -> None:
    """Read the keys that others write, so that the copy has them."""
    near: Any = caches[alias]
    ends_s = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends_s:
        near.get_many([f"foreign-{(number + each) % _KEYS}" for each in range(500)])
        number += 500
