"""What clients do to a cache in their own processes; each returns what it saw."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import time
from typing import Any

from asgiref.sync import async_to_sync

from tests.integration.backends.children import end_of

Cache = Any
Work = Any


def get(cache: Cache, key: str) -> Any:
    """Return what this process sees."""
    return cache.get(key, "missing")


def incr(cache: Cache, key: str, times: int, delta: Any = 1) -> list[float]:
    """Increment many times; return every result."""
    return [cache.incr(key, delta) for _ in range(times)]


def aincr(cache: Cache, key: str, times: int) -> list[float]:
    """Increment many times from four tasks of one event loop; return every result."""

    async def task() -> list[float]:
        return [await cache.aincr(key) for _ in range(times // 4)]

    async def tasks() -> list[float]:
        return list(itertools.chain(*await asyncio.gather(*(task() for _ in range(4)))))

    return async_to_sync(tasks)()


def add_all(cache: Cache, keys: list[str]) -> list[str]:
    """Add each key; return those that this call won."""
    return [key for key in keys if cache.add(key, os.getpid())]


def aadd_all(cache: Cache, keys: list[str]) -> list[str]:
    """Do the same by `aadd`."""

    async def won() -> list[str]:
        return [key for key in keys if await cache.aadd(key, os.getpid())]

    return async_to_sync(won)()


def move_all(cache: Cache, keys: list[str]) -> list[str]:
    """Move each key from version 1 to 2; return those that this call moved."""
    moved = []
    for key in keys:
        with contextlib.suppress(ValueError):
            cache.incr_version(key, version=1)
            moved.append(key)
    return moved


def watch_moves(cache: Cache, keys: list[str]) -> list[str]:
    """Watch each key until it is in version 2; return what no move explains."""
    wrong = []
    for key in keys:
        while True:
            # Version 1 is read first: what has left it must be in version 2 already.
            first = cache.get(key, version=1)
            second = cache.get(key, version=2)
            if first is None and second is None:
                wrong.append(f"{key} in neither")
            if second is not None:
                if cache.get(key, version=1) is not None:
                    wrong.append(f"{key} in both")
                break
    return wrong


def checked(size: int, salt: int) -> bytes:
    """Return a value of at least `size` bytes that begins with its checksum."""
    body = random.Random(salt).randbytes(size)
    return hashlib.sha256(body).digest() + body


def is_whole(value: Any) -> bool:
    """Return whether a value is what `checked` made."""
    return isinstance(value, bytes) and hashlib.sha256(value[32:]).digest() == value[:32]


def overwrite(cache: Cache, keys: list[str], sizes: list[int], times: int) -> int:
    """Overwrite keys with checked values of mixed sizes; return how many writes were made."""
    choose = random.Random(os.getpid())
    for turn in range(times):
        cache.set(choose.choice(keys), checked(choose.choice(sizes), turn), timeout=1000)
    return times


def overwrite_for_ever(cache: Cache, keys: list[str], sizes: list[int]) -> None:
    """Overwrite until killed."""
    while True:
        overwrite(cache, keys, sizes, 100)
        cache.set_many({key: checked(100, 1) for key in keys})
        cache.incr("kill-counter")
        cache.add("kill-added", 1)
        cache.delete("kill-added")


def read_checked(cache: Cache, keys: list[str], times: int) -> list[str]:
    """Read keys that always exist; return what was missing or torn."""
    choose = random.Random(os.getpid())
    wrong = []
    for _ in range(times):
        key = choose.choice(keys)
        value = cache.get(key)
        if value is None:
            wrong.append(f"{key} missing")
        elif not is_whole(value):
            wrong.append(f"{key} torn")
    return wrong


def watch_expiry(cache: Cache, key: str, turns: int) -> list[float]:
    """Set with short timeouts and read on; return by how many seconds an answer came too late.

    The deadline lies between the timeout after the call of `set` and that after its return, so an
    answer to a `get` called later than the second is late, independent of clocks.
    """
    late = []
    for turn in range(turns):
        mine = f"{key}-{os.getpid()}-{turn}"
        cache.set(mine, 1, timeout=0.05)
        deadline = time.time() + 0.05
        while True:
            called = time.time()
            if cache.get(mine) is None:
                break
            if called > deadline:
                late.append(called - deadline)
    return late


def first_use(cache: Cache, key: str) -> bool:
    """Be one of the first users of this cache."""
    cache.set(f"{key}-{os.getpid()}", os.getpid())
    return bool(cache.get(f"{key}-{os.getpid()}") == os.getpid())


def use_after_fork(cache: Cache) -> bool:
    """Do a little of everything; used in children of busy parents."""
    key = f"child-{os.getpid()}"
    cache.set(key, 1)
    cache.incr(key)
    return bool(cache.get(key) == 2 and cache.delete(key))


def fork_while_busy(cache: Cache, forks: int) -> list[int]:
    """Fork again and again while threads of this process write; return the exit codes."""
    import threading  # noqa: PLC0415

    stop = threading.Event()
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            while not stop.is_set():
                cache.set(name, checked(40_000, 1))
                cache.get(name)
                cache.incr("busy")
        except BaseException as exc:  # noqa: BLE001 (raised below, in the test's process)
            failed.append(exc)

    threads = [threading.Thread(target=write, args=(f"busy-{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(forks):
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if use_after_fork(cache) else 2
            os._exit(code)
        codes.append(end_of(pid))
    stop.set()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return codes
