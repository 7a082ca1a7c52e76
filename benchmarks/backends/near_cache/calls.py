"""One call after the other, in a process that is not the listener of its machine's copy."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.cache import caches

from benchmarks.backends.shared_cache.crew import Crew
from benchmarks.measuring import Call, Samples, compare_calls
from benchmarks.measuring.values import VALUE, many_calls
from cacheapp.processes.waiting import until

_NEW = 300  # keys whose first read is timed


def listen(alias: str) -> int:
    """Read until this process is the listener; return its process id. Its thread goes on."""
    near: Any = caches[alias]

    def listens() -> bool:
        return is_served(near) and near.stats()["copy_listener_pid"] == os.getpid()

    until(listens, "this process to listen", 60)
    return os.getpid()


def is_served(near: Any) -> bool:
    """Return True if a read is served from the copy."""
    before = near.stats()["copy_hits"]
    near.get("any")
    return bool(near.stats()["copy_hits"] > before)


def listener(alias: str) -> Crew:
    """Return a crew of one process that listens until the crew is closed."""
    crew = Crew(1)
    crew.together(listen, alias)
    return crew


def measure(
    names: Sequence[str], rounds: int, times: int, alias_of: Any = str, only: Sequence[str] = ()
) -> Samples:
    """Return the microseconds of each call, by operation and cache."""
    variants = {name: _calls(caches[alias_of(name)]) for name in names}
    if only:
        variants = {
            name: {what: call for what, call in calls.items() if what in only}
            for name, calls in variants.items()
        }

    def calls_of(operation: str) -> int:
        return max(1, times // 10) if "many" in operation else times

    return compare_calls(variants, rounds, calls_of, within_s=0.1)


def _calls(cache: Any) -> dict[str, Call]:
    cache.set("value", VALUE, None)
    cache.set("count", 1, None)
    many = many_calls(cache)
    many["set_many 100"]()
    names: Iterator[str] = iter(())
    number = itertools.count()
    settled = cache._copy if hasattr(cache, "_copy") else None  # noqa: SLF001

    def first() -> None:
        cache.get(next(names))

    def prepare() -> None:
        """Store keys that nothing has read; with a copy, wait until it knows that they changed."""
        nonlocal names
        new = [f"first-{next(number)}-{index}" for index in range(_NEW)]
        cache.set_many(dict.fromkeys(new, VALUE))
        if settled is not None:
            _until_applied(cache)
        names = iter(new)

    def first_or_prepare() -> None:
        try:
            first()
        except StopIteration:
            prepare()
            first()

    return {
        "get": lambda: cache.get("value"),
        "get, first": first_or_prepare,
        "get_many 100": many["get_many 100"],
        "set": lambda: cache.set("other", VALUE),
        "incr": lambda: cache.incr("count"),
    }


def _until_applied(near: Any) -> None:
    """Wait until the invalidations of earlier writes have been applied: they arrive in order."""
    copy = near._copy  # noqa: SLF001
    name = copy.keys.name(near.make_key("settled"))
    near.set("settled", 1)
    before = copy.environment.reference_bits.changes(name)
    near._store.executor.execute(  # noqa: SLF001 (a write of which only Redis tells the copy)
        b"SET", near.make_key("settled").encode(), b"1"
    )
    until(lambda: copy.environment.reference_bits.changes(name) > before, "the listener", 30)
