"""What a store knows of its library's descriptors, without a search of all that are open."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.local import sharded_database
from cacheapp.backends.local.descriptors import are_intact
from cacheapp.backends.local.slot_file import identity_of_descriptor
from cacheapp.backends.local.sqlite_connections import Connection
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.disk import parts as disk
from tests.integration.backends.lmdb import parts as lmdb

MANY = 3000


def _names() -> dict[int, str]:
    """Return the paths of all descriptors of this process."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the directory itself, or of another thread
            found[int(link.name)] = str(link.readlink())
    return found


def _of(directory: Path, *suffixes: str) -> set[int]:
    return {
        number
        for number, name in _names().items()
        if name.startswith(str(directory)) and name.endswith(suffixes)
    }


def _known_to_shards(cache: Any) -> set[int]:
    return {number for each in cache._store._database._descriptors for number in each}  # noqa: SLF001


@contextmanager
def _other_thread_opens_and_closes() -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        held: list[int] = []
        while not stop.is_set():
            held.append(os.open(os.devnull, os.O_RDONLY))
            if len(held) > 5:
                os.close(held.pop(0))
        for number in held:
            os.close(number)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _many_open(count: int) -> Iterator[None]:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for number in held:
            os.close(number)


def _bytecodes(work: Callable[[], object]) -> int:
    """Return how many bytecodes run in the work."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside a thread that opens files"])
def test_an_environment_knows_its_descriptors(
    settings: Settings, tmp_path: Path, *, busy: bool
) -> None:
    cache = lmdb.ours(settings, tmp_path)
    environment = lmdb.environment_of(cache)
    for _ in range(20):
        environment.close()
        if busy:
            with _other_thread_opens_and_closes():
                cache.set("key", 1)
        else:
            cache.set("key", 1)
        env = environment.current
        assert env is not None
        assert set(env._descriptors) == _of(tmp_path, "/data.mdb", "/lock.mdb")  # noqa: SLF001
        # The map of an environment that was closed may still be open, until its last user ends.
        assert set(env.reference_bits.descriptors) & _of(tmp_path, "/reference-bits")


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside a thread that opens files"])
def test_a_database_knows_its_descriptors_also_those_that_sqlite_keeps(
    settings: Settings, tmp_path: Path, *, busy: bool
) -> None:
    cache = disk.ours(settings, tmp_path, shards=2)
    keys = [f"key-{number}" for number in range(20)]

    def use() -> None:
        cache.get_many(keys)

    def in_threads() -> None:
        for _ in range(10):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()

    use()
    if busy:
        with _other_thread_opens_and_closes():
            in_threads()
    else:
        in_threads()
    opened = _of(tmp_path, "/cache.db", "/cache.db-wal", "/cache.db-shm")
    assert opened
    assert opened <= _known_to_shards(cache)  # which also has some that SQLite has closed since


@contextmanager
def _open_in_a_child(cache: Any) -> Iterator[None]:
    """Have another process use the cache, so that the last connection of this one removes no files."""

    def hold() -> bool:
        cache.get("key")
        os.write(ready[1], b"x")
        return os.read(done[0], 1) == b"x"

    ready, done = os.pipe(), os.pipe()
    child = in_child(hold)
    assert os.read(ready[0], 1) == b"x"
    try:
        yield
    finally:
        os.write(done[1], b"x")
        for number in (*ready, *done):
            os.close(number)
    assert end_of(child) == 0


def test_a_connection_knows_no_descriptor_that_an_ending_thread_has_closed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = disk.ours(settings, tmp_path, shards=1)
    used, end = threading.Event(), threading.Event()

    def use() -> None:
        cache.set("key", 1)
        used.set()
        assert end.wait(60)

    def opened(*args: Any) -> Connection:
        if not end.is_set():  # the descriptors that are there have been noted
            end.set()
            thread.join()  # which closes its connection
            stack.enter_context(_many_open(10))  # so that the new ones get other numbers
        return Connection(*args)

    with ExitStack() as stack:
        stack.enter_context(_open_in_a_child(cache))
        thread = threading.Thread(target=use)
        thread.start()
        assert used.wait(60)
        monkeypatch.setattr(sharded_database, "Connection", opened)
        assert cache.get("key") == 1
        assert end.is_set()
        con = cache._store._database.registry.current().connections[0]  # noqa: SLF001
        assert con is not None
        assert are_intact(con.descriptors)
        names = _names()
        found = {f"/{Path(names[number]).name}" for number in con.descriptors}
        assert found == {"/cache.db", "/cache.db-wal", "/cache.db-shm"}


class _GivesWay:
    """A lock: when this thread has released it, another one runs before this thread goes on."""

    def __init__(self, lock: Any, meanwhile: Callable[[], None]) -> None:
        self._lock = lock
        self._meanwhile = meanwhile
        self._first = threading.current_thread()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.current_thread() is self._first:
            thread = threading.Thread(target=self._meanwhile)
            thread.start()
            thread.join()


def test_a_connection_knows_no_descriptor_of_one_that_another_thread_opened_meanwhile(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = disk.ours(settings, tmp_path, shards=1)
    database = cache._store._database  # noqa: SLF001
    cache.set("key", 1)
    database.close()
    runs = []

    def meanwhile() -> None:
        runs.append(cache.get("key"))
        database.registry.current().close_within(60)

    monkeypatch.setattr(database, "_opening", _GivesWay(database._opening, meanwhile))  # noqa: SLF001
    assert cache.get("key") == 1
    assert set(runs) == {1}
    con = database.registry.current().connections[0]
    assert con is not None
    assert are_intact(con.descriptors)


def test_opening_takes_no_longer_with_many_open_descriptors(
    settings: Settings, tmp_path: Path
) -> None:
    def opened_lmdb() -> None:
        lmdb.environment_of(on_lmdb).close()
        on_lmdb.get("key")

    def opened_disk() -> None:
        on_disk._store.close()  # noqa: SLF001
        on_disk.get("key")

    on_lmdb = lmdb.ours(settings, tmp_path / "lmdb", "memory")
    on_disk = disk.ours(settings, tmp_path / "disk")
    for opened in (opened_lmdb, opened_disk):
        for _ in range(3):
            opened()
        few = _bytecodes(opened)
        with _many_open(MANY):
            assert _bytecodes(opened) < few + MANY / 10


@pytest.mark.parametrize(
    "check",
    [identity_of_descriptor, lambda number: are_intact({number: (0, 0)})],
    ids=["identity", "all"],
)
def test_a_time_out_that_a_handler_raises_passes_the_check_of_a_descriptor(
    check: Callable[[int], object],
) -> None:
    raised = seen = 0

    def handler(_number: int, _frame: object) -> None:
        nonlocal raised
        raised += 1
        raise TimeoutError

    def check_until_raised(round_: int) -> None:
        """A function of its own: from Python 3.13 on, a `try` does not cover all of a loop in it."""
        while raised == round_:
            check(0)

    before = signal.signal(signal.SIGVTALRM, handler)
    try:
        for round_ in range(40):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0001)
                check_until_raised(round_)
            except TimeoutError:
                seen += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert seen == raised == 40
