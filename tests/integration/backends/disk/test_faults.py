"""A busy database, a full disk, a damaged file: each has its own error, and none becomes a miss."""

import contextlib
import itertools
import logging
import multiprocessing
import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.errors import StoreFull, StoreUnavailable
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.contract.clients import Clients, calls
from tests.integration.backends.disk.parts import (
    LARGE,
    databases,
    forked,
    ours,
    shards,
    stock,
    value_files,
)

LRU = "least-recently-used"


@contextlib.contextmanager
def _write_locks(paths: list[Path]) -> Iterator[None]:
    """Hold the write lock of every database."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            other = stack.enter_context(contextlib.closing(sqlite3.connect(path, timeout=20)))
            other.isolation_level = None
            other.execute("BEGIN IMMEDIATE")
            stack.callback(other.rollback)
        yield


@pytest.mark.parametrize("policy", ["least-recently-stored", LRU])
def test_a_busy_database_is_waited_for_and_then_named_and_reads_succeed(
    settings: Settings, tmp_path: Path, policy: str
) -> None:
    cache = ours(settings, tmp_path, database_timeout=0.2, eviction_policy=policy)
    cache.set_many({f"key-{n}": n for n in range(50)})
    with _write_locks(databases(tmp_path)):
        for write in (
            lambda: cache.set("key-1", 5),
            lambda: cache.incr("key-1"),
            lambda: cache.delete("key-1"),
            lambda: cache.add("other", b"x" * LARGE),
            lambda: cache.set_many({"key-1": 5, "key-2": 6}),
        ):
            with pytest.raises(StoreUnavailable, match=r"whole database_timeout of 0\.2 s"):
                write()
        assert cache.get("key-1") == 1
    assert cache.get_many([f"key-{n}" for n in range(50)]) == {f"key-{n}": n for n in range(50)}
    assert value_files(tmp_path) == []
    cache.set("key-1", 7)
    assert cache.get("key-1") == 7


def test_with_the_stock_backend_a_busy_database_is_a_miss(
    settings: Settings, tmp_path: Path
) -> None:
    cache = stock(settings, tmp_path, eviction_policy=LRU)
    cache.set("key", 1)
    with _write_locks(sorted(tmp_path.glob("*/cache.db"))):
        assert cache.get("key", "miss") == "miss"
        assert cache.set("key", 2, retry=False) is False
    assert cache.get("key") == 1
    cache.close()


def _fill(cache: Any, size: int) -> tuple[int, str]:
    """Write until the disk is full; return how much was written, and check what is stored then."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache.set("first", "kept", timeout=None)
    limit = 2_000_000 if size < LARGE else size - 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    written = 0
    with pytest.raises(StoreFull) as caught:  # noqa: PT012 (how many succeed is what is measured)
        for written in range(10_000):
            cache.set(f"key-{written}", b"%08d" % written * (size // 8), timeout=None)
    assert cache.get("first") == "kept"
    for n in range(written):
        assert cache.get(f"key-{n}") == b"%08d" % n * (size // 8)
    assert not cache.has_key(f"key-{written}")
    cache.clear()
    assert not cache.has_key("first")
    cache.set("small", 1)
    assert cache.get("small") == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    cache.set("after", "room again", timeout=None)
    assert cache.get("after") == "room again"
    return written, str(caught.value)


@pytest.mark.parametrize("size", [8_000, 100_000], ids=["rows", "files"])
def test_without_space_a_write_raises_store_full_and_nothing_else_is_harmed(
    settings: Settings, tmp_path: Path, size: int
) -> None:
    ours(settings, tmp_path, shards=1)
    ((written, message),) = forked(settings).run(_fill, size, processes=1)
    assert "nothing was" in message
    assert written == 0 if size > LARGE else written > 10
    assert value_files(tmp_path) == []
    (database,) = databases(tmp_path)
    with contextlib.closing(sqlite3.connect(database)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert caches["default"].get("after") == "room again"


def _get_without_room(cache: Any, key: str) -> Any:
    """Act as a process that starts while no file may grow; also return the result of a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with pytest.raises(StoreFull):
        cache.set(key, b"x" * 8_000)
    return cache.get(key)


def test_a_process_that_starts_when_nothing_can_be_written_reads(
    settings: Settings, tmp_path: Path
) -> None:
    """A worker that is replaced while the disk is full, or while another is stopped in a write."""
    cache = ours(settings, tmp_path, shards=2, database_timeout=0.5)
    cache.set("key", "kept")
    context = cast("Any", multiprocessing.get_context("spawn"))
    clients = Clients(context, settings.CACHES, settings.CACHEAPP)
    assert clients.run(_get_without_room, "key", processes=1) == ["kept"]
    with _write_locks(databases(tmp_path)):
        assert clients.run(work.get, "key", processes=1) == ["kept"]


def _garbage_at_the_front(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database " * 1000)


def _garbage_behind_the_front(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def _cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(5000)


def _emptied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


HARMS = [_garbage_at_the_front, _garbage_behind_the_front, _cut_short, _emptied]
HARM_IDS = ["front", "rest", "cut", "empty"]


def _damage(location: Path, harm: Any) -> None:
    for path in databases(location):
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        harm(path)


@pytest.mark.parametrize("harm", HARMS, ids=HARM_IDS)
def test_a_damaged_database_is_set_aside_with_a_warning_and_the_cache_starts_empty(
    settings: Settings, tmp_path: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ours(settings, tmp_path, shards=1)
    cache.set_many({f"key-{n}": "v" * 500 for n in range(200)})
    cache._store.close()  # noqa: SLF001 (as in a process that starts)
    _damage(tmp_path, harm)
    with caplog.at_level(logging.WARNING, "cacheapp"):
        missing = [n for n in range(200) if cache.get(f"key-{n}") is None]
        cache.set_many({f"key-{n}": n for n in range(200)})
    assert missing[-1] == 199
    assert cache.get_many([f"key-{n}" for n in range(200)]) == {f"key-{n}": n for n in range(200)}
    aside = list((tmp_path / "default").glob("damaged-*"))
    assert len(aside) == 1
    assert "damaged cache database" in caplog.text
    assert len(shards(tmp_path)) == 1


def _meet(cache: Any, n: int, stop: Path) -> list[str]:
    """Write an own entry in each request until the file exists; return all errors."""
    errors = []
    for turn in itertools.count():
        last = stop.exists()
        try:
            cache.set(f"mine-{n}", "last" if last else turn)
            cache.get("mine-0")
        except StoreUnavailable as exc:
            errors.append(str(exc))
        finally:
            cache.close()
        if last:
            break
    return errors


@pytest.mark.parametrize("harm", HARMS[:3], ids=HARM_IDS[:3])
def test_processes_that_run_while_a_database_is_damaged_all_meet_in_one_new_one(
    settings: Settings, tmp_path: Path, harm: Any
) -> None:
    cache = ours(settings, tmp_path, shards=1)
    cache.set_many({f"key-{n}": "v" * 500 for n in range(200)})
    (before,) = databases(tmp_path)
    inode = before.stat().st_ino
    stop = tmp_path / "stop"
    running = forked(settings).start([calls(_meet, n, stop) for n in range(4)])
    until(lambda: all(cache.get(f"mine-{n}", 0) > 50 for n in range(4)), "all to write")
    harm(before)
    until(lambda: list((tmp_path / "default").glob("damaged-*")), "the damage to be found")
    stop.touch()
    assert running.results() == [[]] * 4
    cache.close()
    assert cache.get_many([f"mine-{n}" for n in range(4)]) == dict.fromkeys(
        [f"mine-{n}" for n in range(4)], "last"
    )
    (after,) = databases(tmp_path)
    asides = list((tmp_path / "default").glob("damaged-*/cache.db"))
    assert [path.stat().st_ino for path in asides] == [inode]
    with contextlib.closing(sqlite3.connect(after)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _write_on(cache: Any, n: int, stop: Path) -> list[str]:
    """Write until the file exists; return all errors."""
    errors = []
    while not stop.exists():
        try:
            cache.set(f"mine-{n}", b"x" * LARGE)
            cache.set(f"mine-{n}", n)
            cache.get(f"mine-{n}")
        except Exception as exc:  # noqa: BLE001 (each is shown)
            errors.append(repr(exc))
    return errors


def test_no_operation_fails_because_the_directory_is_being_removed(
    settings: Settings, tmp_path: Path
) -> None:
    location, stop = tmp_path / "cache", tmp_path / "stop"
    ours(settings, location)
    running = forked(settings).start([calls(_write_on, n, stop) for n in range(3)], threads=2)
    for _ in range(12):
        until(lambda: len(databases(location)) >= 3, "the directory to come back")
        shutil.rmtree(location, ignore_errors=True)
    stop.touch()
    assert running.results() == [[]] * 6


def test_a_database_that_is_locked_while_it_is_opened_is_an_error_in_time(
    settings: Settings, tmp_path: Path
) -> None:
    """Stock diskcache retries for a minute per pragma."""
    first = ours(settings, tmp_path, shards=1)
    first.set("key", "value")
    first._store.close()  # noqa: SLF001
    (path,) = databases(tmp_path)
    cache = ours(settings, tmp_path, shards=1, database_timeout=0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA journal_mode = delete")
        other.execute("BEGIN EXCLUSIVE")
        began_s = clock.monotonic_s()
        with pytest.raises(StoreUnavailable, match=r"held the lock .* nothing was done"):
            cache.get("key")
        assert clock.monotonic_s() - began_s < 50
        other.execute("ROLLBACK")
    assert cache.get("key") == "value"
