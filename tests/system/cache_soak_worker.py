"""A worker of the caches' soak: counts, while signals interrupt it, and forks as told.

Usage: `python -m tests.system.cache_soak_worker BACKEND LOCATION STATE_DIR SLOTS SLOT`. `SLOTS` is a
file of two numbers for each slot: increments that were acknowledged, and those with an unknown
outcome. Orders come from standard input, a word a line: `daemon`, `fork` or `grow`; each is answered with
`done`.
"""

import ctypes
import mmap
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

SLOTS = 4096
_CHILDREN = 64  # slots of a worker's children
_fork_in_c: Callable[[], int] = ctypes.PyDLL(None).fork  # no hook of Python runs


class Interrupted(Exception):
    """What the signal handler raises now and then."""


class Interruption:
    """Whether the handler may raise now: once each time that it is armed."""

    armed = False


class Counter:
    """Increments one key, and keeps account of them in a file that outlives this process."""

    def __init__(self, cache: Any, slots: Path, slot: int) -> None:
        with slots.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self._cache = cache
        self._at = 2 * slot

    def add(self) -> None:
        """Increment; until the acknowledgement the outcome is unknown."""
        from cacheapp.errors import StoreUnavailable  # noqa: PLC0415 (settings come first)

        self._numbers[self._at + 1] += 1
        try:
            self._cache.incr("counter")
        except StoreUnavailable:  # it did not happen
            self._numbers[self._at + 1] -= 1
            return
        self._numbers[self._at] += 1
        self._numbers[self._at + 1] -= 1


def _handler(cache: Any) -> Callable[[int, Any], None]:
    from cacheapp.errors import ReentrantCall  # noqa: PLC0415 (settings come first)

    rng = random.Random(os.getpid())

    def handle(_number: int, _frame: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.02))
        try:
            cache.set("handler", 1)
            cache.get("handler")
        except ReentrantCall:
            pass
        if Interruption.armed and rng.random() < 0.2:
            Interruption.armed = False
            raise Interrupted

    return handle


def _in_child(cache: Any, slots: Path, slot: int) -> None:
    """Use the cache as a child does that must not harm its parent, and end."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = 1
    try:
        counter = Counter(cache, slots, slot)
        for _ in range(20):
            counter.add()
        code = 0
    finally:
        os._exit(code)


def _become_daemon(cache: Any, slots: Path, slot: int, directory: Path) -> None:
    """Close all descriptors, open files of our own, use the cache; the files must stay as they are."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = 1
    try:
        os.closerange(3, 1024)
        own = [(directory / f"own-{os.getpid()}-{n}").open("w+b", buffering=0) for n in range(12)]
        for file in own:
            file.write(b"precious")
        counter = Counter(cache, slots, slot)
        for _ in range(20):
            counter.add()
        with cache.lock(f"daemon-{os.getpid()}", blocking_timeout=10):
            pass
        for file in own:
            file.seek(0)
            found = file.read()
            if found != b"precious":
                os.write(2, b"%s became %r\n" % (os.fsencode(file.name), found[:80]))
                os._exit(3)
        code = 0
    finally:
        os._exit(code)


def _configure(backend: str, location: str, state: str) -> Any:
    """Return the cache of this process."""
    entry: dict[str, Any] = {"BACKEND": f"cacheapp.backends.{backend}", "LOCATION": location}
    if backend == "LMDBCache":
        entry["OPTIONS"] = {"size_limit": 16 * 2**20}
    settings.configure(
        CACHES={"default": entry}, CACHEAPP={"STATE_DIR": state}, SECRET_KEY="x" * 50
    )
    from django.core.cache import cache  # noqa: PLC0415 (settings come first)

    return cache


def _grow() -> None:
    """Take memory until the kernel kills this process, while another thread uses the cache."""
    taken = []
    while True:
        taken.append(b"x" * 2**24)


def _obey(order: str, cache: Any, slots: Path, slot: int, directory: Path) -> str:
    """Do what an order says; return the answer."""
    if order == "grow":
        threading.Thread(target=_grow, daemon=True).start()
        return "done"
    signal.setitimer(signal.ITIMER_REAL, 0)
    pid = os.fork() if order == "daemon" else _fork_in_c()
    if pid == 0 and order == "daemon":
        _become_daemon(cache, slots, slot, directory)
    elif pid == 0:
        _in_child(cache, slots, slot)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    return "done" if status == 0 else f"{order} ended with {status}"


def main() -> None:
    """Count until standard input ends."""
    backend, location, state, slots_path, slot_text = sys.argv[1:]
    cache, slots, slot = _configure(backend, location, state), Path(slots_path), int(slot_text)
    counter = Counter(cache, slots, slot)
    cache.add("counter", 0, None)
    orders: list[str] = []
    ended = threading.Event()

    def read_orders() -> None:
        for line in sys.stdin:
            orders.append(line.strip())  # noqa: PERF401 (as they come)
        ended.set()

    signal.signal(signal.SIGALRM, _handler(cache))
    threading.Thread(target=read_orders, daemon=True).start()
    children = 0
    print("ready", flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not ended.is_set():
        try:
            Interruption.armed = True
            counter.add()
            Interruption.armed = False
            if orders:
                children += 1
                child_slot = slot + children % _CHILDREN
                answer = _obey(orders[0], cache, slots, child_slot, Path(state).parent)
                del orders[0]
                print(answer, flush=True)
        except Interrupted:
            continue
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the handler starts the timer again
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
