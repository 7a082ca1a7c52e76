"""An exception of a signal handler at any point of an operation leaves everything sound."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.errors import ReentrantCall
from cacheapp.processes.waiting import until
from tests.integration.backends.disk.parts import LARGE, ours
from tests.integration.backends.interrupt_everywhere import (
    LEFT_HELD_S,
    finalised_everywhere,
    interrupt_everywhere,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def _lock(cache: Any) -> None:
    # A new name each time: no `release` follows if the trace function raises as `acquire` returns.
    with cache.lock(f"lock-{next(_numbers)}", timeout=60, blocking=False):
        pass


def _incr_text(cache: Any) -> None:
    with pytest.raises(TypeError, match="only numbers"):
        cache.incr("text")


_numbers = itertools.count()


OPERATIONS: dict[str, tuple[Callable[[Any], object], int]] = {
    "get": (lambda cache: cache.get("key"), 1),
    "set": (lambda cache: cache.set("key", b"small"), 1),
    "set-large": (lambda cache: cache.set("key", b"x" * LARGE), 5),
    "incr": (lambda cache: cache.incr("number"), 1),
    "incr-of-text": (_incr_text, 3),
    "get_or_set": (lambda cache: cache.get_or_set("cold", lambda: 1), 3),
    "lock": (_lock, 3),
    "delete": (lambda cache: cache.delete("key"), 3),
    "evict": (lambda cache: cache.evict("tag"), 7),
    "get_many": (lambda cache: cache.get_many(["key", "number", "text"]), 29),
    "iter_keys": (lambda cache: list(cache.iter_keys("*")), 53),
    "delete_pattern": (lambda cache: cache.delete_pattern("k*"), 61),
    "opening": (lambda cache: cache.get("key"), 67),
    "opening, in each line of the connections": (lambda cache: cache.get("key"), 3),
}


def _databases(cache: Any) -> list[Any]:
    return [cache._store._database, cache._store._locks.database]  # noqa: SLF001


def _close(cache: Any) -> None:
    for database in _databases(cache):
        database.close()


def _open_files(directory: Path) -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(directory)) and ".db" in name]


def _open_transactions(cache: Any) -> int:
    return sum(
        connection.sqlite.in_transaction
        for database in _databases(cache)
        for thread in database.registry._all  # noqa: SLF001
        for connection in thread.opened()
    )


# A file that was opened as the exception came is closed by its finaliser.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_of_a_handler_leaves_no_lock_and_no_transaction(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    cache = ours(settings, tmp_path, shards=1, database_timeout=LEFT_HELD_S)
    operation, step = OPERATIONS[name]

    def prepare() -> None:
        cache.set_many({"key": b"small", "number": 1, "text": "text"})
        cache.set_many({"by-thread": seen[0], "by-process": seen[1]}, timeout=None)
        cache.set("tagged", 1, tag="tag")
        cache.delete("cold")
        if name.startswith("opening"):
            _close(cache)

    def check() -> None:
        seen[:] = cache.get("by-thread"), cache.get("by-process")
        # A thread that renews leases may be in a transaction of its own.
        until(lambda: _open_transactions(cache) == 0, "all transactions to end")
        assert not cache._store._database.registry.current().is_inside()  # noqa: SLF001
        with cache.lock("other", blocking=False):
            assert cache.get_or_set("computed", lambda: 1) == 1
        if name.startswith("opening"):
            _close(cache)
            assert _open_files(tmp_path) == [], "a fork would hand these to the child"

    seen = [0, 0]
    cache.set_many({"by-thread": 0, "by-process": 0}, timeout=None)
    within = "local/sqlite_connections.py" if "connections" in name else ""
    count = interrupt_everywhere(
        cache, lambda: operation(cache), check, step=step, within=within, prepare=prepare
    )
    assert count * step > 100, "too few: this test has shown nothing"


@pytest.mark.parametrize("name", ["get", "set", "incr", "get_or_set", "lock"])
def test_a_write_at_any_point_of_an_operation_works_or_is_refused(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    cache = ours(settings, tmp_path, shards=1)
    cache.set_many({"key": b"small", "number": 1, "inner": 0}, timeout=None)
    worked = refused = 0

    def use() -> None:
        nonlocal worked, refused
        try:
            if name == "lock":  # another database, which is refused by itself
                _lock(cache)
            cache.incr("inner")
            worked += 1
        except ReentrantCall:
            refused += 1

    with finalised_everywhere(use):
        OPERATIONS[name][0](cache)
    assert cache.get("inner") == worked
    assert worked > 50
    assert refused > 20
