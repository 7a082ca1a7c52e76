"""Test LMDBCache under kills, stops, forks, signals and full disks: no value is lost, torn or stale."""

import contextlib
import gc
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends import LMDBCache
from cacheapp.errors import ReentrantCall
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.contract.clients import Clients
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.interrupt_everywhere import interrupt_everywhere
from tests.integration.backends.lmdb.parts import open_files, ours, stopped_inside
from tests.integration.interrupts import handled_again_and_again

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

KILLS = 200


def _count_up(cache: LMDBCache, acknowledged: mmap.mmap) -> None:
    """Write increasing numbers in values of varying size; acknowledge each one after its write."""
    number = struct.unpack("Q", acknowledged[:8])[0]
    while True:
        number += 1
        cache.set("value", (number, work.checked(number % 7 * 1000, number)), timeout=1000)
        acknowledged[:8] = struct.pack("Q", number)
        cache.incr("counter")
        acknowledged[8:16] = struct.pack("Q", struct.unpack("Q", acknowledged[8:16])[0] + 1)


def _survive_kills(cache: LMDBCache) -> bool:
    """Start and kill writers, and check after each kill what they left."""
    cache.set("value", (0, work.checked(1, 1)))
    cache.set("counter", 0)
    acknowledged = mmap.mmap(-1, 16)
    for kill in range(KILLS):
        begun = acknowledged[:]
        pid = in_child(lambda: _count_up(cache, acknowledged))
        until(lambda: acknowledged[:] != begun, "a write")  # noqa: B023
        for _ in range(kill % 5 * 7):
            cache.set("survivor", kill)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        number, value = cache.get("value")
        acknowledged_number, counted = struct.unpack("QQ", acknowledged[:])
        assert acknowledged_number <= number <= acknowledged_number + 1
        assert work.is_whole(value)
        # Each child so far may have been killed between a write and its acknowledgement.
        assert counted <= (cache.get("counter") or 0) <= counted + kill + 1
        cache.set("survivor", "lives")
        assert cache.get("survivor") == "lives"
        acknowledged[:8] = struct.pack("Q", number)
    return True


def test_a_writer_killed_at_any_instant_leaves_no_lost_or_torn_value_and_no_lock(
    settings: Settings, tmp_path: Path
) -> None:
    """Run in a separate process, as forks of this large one are slow."""
    ours(settings, tmp_path)
    context = cast("Any", multiprocessing.get_context("spawn"))
    clients = Clients(context, settings.CACHES, settings.CACHEAPP)
    assert clients.start([_survive_kills]).results(within_s=280) == [True]


def test_a_stopped_writer_blocks_only_writers_and_only_until_it_continues_or_dies(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "value")
    done = threading.Event()

    def write() -> None:
        cache.set("key", "after")
        done.set()

    writer = threading.Thread(target=write)
    with stopped_inside(cache, writing=True):
        writer.start()
        assert cache.get("key") == "value"
        assert not done.wait(0.1)
        assert cache.get("key") == "value"
    assert done.wait(30)
    writer.join()
    assert cache.get("key") == "after"


async def test_a_stopped_writer_does_not_block_the_event_loop(
    settings: Settings, tmp_path: Path
) -> None:
    import asyncio  # noqa: PLC0415

    cache = ours(settings, tmp_path)
    cache.set("key", "value")
    with stopped_inside(cache, writing=True):
        writing = asyncio.create_task(cache.aset("key", "after"))
        done, _ = await asyncio.wait([writing], timeout=0.05)
        assert not done
        assert await cache.aget("key") == "value"
    await asyncio.wait_for(writing, 30)
    assert await cache.aget("key") == "after"


@contextlib.contextmanager
def _threads(body: Callable[[], None], count: int) -> Iterator[None]:
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                body()
        except BaseException as exc:  # noqa: BLE001 (raised below, in the test's thread)
            failed.append(exc)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failed == []


def test_a_fork_among_busy_threads_leaves_both_sides_working(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("busy", 0)
    done: list[int] = []

    def body() -> None:
        done.append(cache.incr("busy"))
        cache.get("busy")
        cache.set(f"key-{threading.get_ident()}", b"x" * 3000)

    def use() -> bool:
        key = f"child-{os.getpid()}"
        cache.set(key, 1)
        return open_files(tmp_path) != [] and cache.incr(key) == 2 and cache.delete(key)

    with _threads(body, 3):
        ends = [end_of(in_child(use)) for _ in range(30)]
    assert ends == [0] * 30
    assert sorted(done) == list(range(1, len(done) + 1))


def test_a_child_inherits_no_environment(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1)
    assert len(open_files(tmp_path)) > 1
    assert end_of(in_child(lambda: open_files(tmp_path) == [])) == 0
    assert end_of(in_child(lambda: end_of(in_child(lambda: cache.get("key") == 1)) == 0)) == 0
    assert cache.get("key") == 1


def test_a_fork_in_a_signal_handler_inside_a_write_harms_neither_side(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({"outer": 0, "inner": 0})
    ends: list[int] = []
    total = 0
    fork_and_read = lambda: ends.append(end_of(in_child(lambda: cache.get("inner") == 0)))  # noqa: E731
    pauses_s = (
        0.001,
        0.0023,
        0.0013,
        0.3,
    )  # the last is longer than it takes to open an environment
    with handled_again_and_again(fork_and_read, pauses_s):
        while len(ends) < 30:
            total += 1
            assert cache.incr("outer") == total
    # In a child of a fork inside the opening of the environment, the handler's read is refused.
    assert set(ends) <= {0, 1}
    assert 0 in ends
    assert cache.get("outer") == total


def test_a_write_in_a_signal_handler_works_or_is_refused_at_once(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({"outer": 0, "inner": 0, "thread": 0, "child": 0, "read": "here"})
    done = threading.Event()
    acknowledged = refused = 0

    def write_elsewhere() -> None:
        while not done.is_set():
            cache.incr("thread")

    def handle() -> None:
        nonlocal acknowledged, refused
        try:
            assert cache.get("read") == "here"
            cache.incr("inner")
            acknowledged += 1
        except ReentrantCall:
            refused += 1

    threads = [threading.Thread(target=write_elsewhere) for _ in range(3)]
    for thread in threads:
        thread.start()
    other = in_child(lambda: all(cache.incr("child") for _ in range(20_000)))
    total, longest_s = 0, 0.0
    with handled_again_and_again(handle, (0.001, 0.0023, 0.0013, 0.03)):
        while acknowledged + refused < 400:
            total += 1
            began_s = time.monotonic()
            assert cache.incr("outer") == total
            longest_s = max(longest_s, time.monotonic() - began_s)
    done.set()
    for thread in threads:
        thread.join(30)
    assert end_of(other) == 0
    assert cache.get("inner") == acknowledged
    assert refused, "no signal came inside a write"
    assert longest_s < 100, "a write waited for its own thread"


class _Finalised:
    """Writes to the cache when it is collected, perhaps inside an operation."""

    def __init__(self, cache: LMDBCache, results: list[str]) -> None:
        self._cache, self._results, self._me = cache, results, self  # a cycle: the collector's

    def __del__(self) -> None:
        try:
            self._cache.set("finalised", 1)
            self._results.append("stored")
        except ReentrantCall:
            self._results.append("refused")


def test_a_finaliser_that_writes_inside_an_operation_stores_or_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    results: list[str] = []
    threshold = gc.get_threshold()
    gc.set_threshold(7, 1, 1)
    try:
        for number in range(3000):
            _Finalised(cache, results)
            cache.set("outer", [number])  # allocates inside the operation
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    assert len(results) == 3000
    assert cache.get("outer") == [2999]


def _write_that_fails(cache: LMDBCache) -> None:
    def fail(*_args: object) -> None:
        raise LookupError

    with contextlib.suppress(LookupError):
        cache._environment.write(fail)  # noqa: SLF001


# A file that is being opened is closed by its finaliser.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
# From Python 3.13 on, an interrupted `Path.glob` leaves its scandir to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")
@pytest.mark.parametrize(
    ("operation", "step"),
    [
        (lambda cache: cache.set("key", "value"), 1),
        (lambda cache: cache.incr("number"), 1),
        (lambda cache: cache.get("key"), 1),
        (lambda cache: cache.get_many(["key", "number"]), 3),
        (lambda cache: cache.delete("key"), 3),
        (_write_that_fails, 1),
        (lambda cache: (cache._environment.end_request(), cache.set("key", "new")), 1),  # noqa: SLF001
        (lambda cache: cache._environment.get_with_meta(b"meta", b"key", 0.0), 1),  # noqa: SLF001
        (lambda cache: list(cache.iter_keys("*")), 7),
        (lambda cache: cache.delete_pattern("k*"), 11),
        (lambda cache: cache._environment.close(), 1),  # noqa: SLF001
        (lambda cache: (cache._environment.close(), cache.get("key")), 97),  # noqa: SLF001
    ],
    ids=[
        "set",
        "incr",
        "get",
        "get_many",
        "delete",
        "write that fails",
        "set with a check",
        "get_with_meta",
        "iter_keys",
        "delete_pattern",
        "close",
        "get that opens",
    ],
)
def test_an_exception_of_a_handler_at_any_bytecode_leaves_all_writers_going(
    settings: Settings, tmp_path: Path, operation: Callable[[LMDBCache], object], step: int
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({"key": "value", "number": 1})

    def check() -> None:
        cache.set("key", "value")

    assert interrupt_everywhere(cache, lambda: operation(cache), check, step=step) > 20


@pytest.mark.parametrize(
    "within",
    [
        "lmdb/open_environment.py",
        "lmdb/environment.py",
        pytest.param("/cacheapp/", marks=pytest.mark.soak),
    ],
)
def test_an_exception_of_a_handler_as_the_environment_opens_leaves_all_writers_going(
    settings: Settings, tmp_path: Path, within: str
) -> None:
    """At each bytecode of some files: most of those that the test above goes through are of others."""
    cache = ours(settings, tmp_path)

    def open_again() -> None:
        cache._environment.close()  # noqa: SLF001
        cache.get("key")

    def check() -> None:
        cache.set("key", "value")

    assert interrupt_everywhere(cache, open_again, check, within=within) > 200


_ON_A_SMALL_DISK = """
import os, sys
from pathlib import Path
from django.conf import settings
settings.configure(CACHES={}, CACHEAPP={"STATE_DIR": sys.argv[2]}, SECRET_KEY="x" * 50)
from cacheapp.backends import LMDBCache
from cacheapp.errors import StoreUnavailable
disk = Path(sys.argv[1])
try:
    LMDBCache(disk / "large", {"OPTIONS": {"size_limit": 16 * 2**20}}).set("key", 1)
except StoreUnavailable as exc:
    print(exc)
cache = LMDBCache(disk / "small", {"OPTIONS": {"size_limit": 4 * 2**20}})
cache.set("key", 1)
with open(disk / "filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as exc:
        print(exc.strerror)
for number in range(3000):
    cache.set(f"key-{number}", os.urandom(5000))
    cache.get(f"key-{number // 2}")
print(cache.get("key-2999") is not None, cache.stats()["evictions"] > 1000)
"""


def test_a_full_disk_is_an_error_at_the_first_use_and_never_a_sigbus(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "script.py"
    script.write_text(_ON_A_SMALL_DISK)
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs; run as root: make test")
    command = (
        f"mount -t tmpfs -o size=8m tmpfs {disk} && "
        f"exec {sys.executable} {script} {disk} {tmp_path / 'state'}"
    )
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    first, *rest = done.stdout.splitlines()
    assert "cannot hold a cache of 16777216 bytes (" in first, done.stderr
    assert "bytes are needed, 83" in first
    assert rest == ["No space left on device", "True True"]
    assert done.returncode == 0
