"""What clients do with locks in their own processes."""

import os
import signal
from pathlib import Path
from typing import Any

Cache = Any


def count_under_lock(cache: Cache, name: str, path: str, times: int) -> int:
    """Write a token into a file, many times, each after one that must be smaller; return how many.

    What is read is written back longer: two at a time would lose a line.
    """
    file = Path(path)
    for _ in range(times):
        with cache.lock(name) as lock:
            lines = file.read_text().splitlines()
            assert not lines or int(lines[-1]) < lock.token
            file.write_text("\n".join([*lines, str(lock.token)]))
    return times


def hold_for_ever(cache: Cache, name: str) -> None:
    """Acquire a lock, store its token under the key `held`, and hold the lock until killed."""
    lock = cache.lock(name)
    assert lock.acquire()
    cache.set("held", lock.token)
    signal.pause()


def hold_and_fork(cache: Cache, name: str) -> None:
    """Do the same, with a forked child (named by the key `child`) that lives on."""
    lock = cache.lock(name)
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    cache.set("child", child)
    cache.set("held", lock.token)
    signal.pause()
