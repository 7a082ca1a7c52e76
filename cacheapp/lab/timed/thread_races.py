"""One counter, many threads: unprotected, with a call in between, with a lock, with `incr`."""

import dis
import sys
import threading
from collections.abc import Callable
from typing import Any

counter = 0
lock = threading.Lock()


def bare(times: int) -> None:
    """Add in one statement; the interpreter still reads, adds and writes."""
    global counter
    for _ in range(times):
        counter += 1


def plus(value: int) -> int:
    """Represent what a program does with the value."""
    return value + 1


def with_a_call(times: int) -> None:
    """Read, call a function, write."""
    global counter
    for _ in range(times):
        counter = plus(counter)


def with_a_lock(times: int) -> None:
    """Hold a lock between reading and writing."""
    global counter
    for _ in range(times):
        with lock:
            counter = plus(counter)


CODES: "dict[str, Callable[[int], None]]" = {
    "counter += 1": bare,
    "counter = plus(counter)": with_a_call,
    "the same with a lock": with_a_lock,
}


def together(add: "Callable[[int], None]", threads: int, times: int) -> None:
    """Add in all threads at the same time; return at the end."""
    barrier = threading.Barrier(threads)

    def work() -> None:
        barrier.wait()
        add(times)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def lost(code: str, threads: int, times: int) -> "dict[str, Any]":
    """Return how many of `threads * times` additions are lost."""
    global counter
    counter = 0
    together(CODES[code], threads, times)
    return {"lost": threads * times - counter, "python": python()}


def lost_with_incr(threads: int, times: int) -> "dict[str, Any]":
    """Count in Django's LocMemCache: its `incr` is atomic among the threads of a process."""
    from django.conf import settings

    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    )
    from django.core.cache import cache

    cache.set("counter", 0, None)

    def add(count: int) -> None:
        for _ in range(count):
            cache.incr("counter")

    together(add, threads, times)
    return {"lost": threads * times - cache.get("counter"), "python": python()}


def python() -> str:
    """Return which interpreter this is."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return ".".join(map(str, sys.version_info[:3])) + ("" if gil else " without GIL")


def steps() -> str:
    """Return the bytecode instructions of `counter += 1`."""
    code = compile("counter += 1", "", "exec")
    names = [one.opname for one in dis.get_instructions(code)]
    return ", ".join(names[: names.index("STORE_NAME") + 1])
