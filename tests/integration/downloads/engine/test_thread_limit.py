"""The machine's download threads: processes share them, and a killed process frees its own."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.downloads.engine.scheduler import FileQueue
from cacheapp.downloads.engine.thread_limit import ThreadLimit, thread_limit
from cacheapp.downloads.engine.thread_pool import AttemptResult, ThreadPool
from cacheapp.downloads.engine.transfer_options import Buffer
from cacheapp.processes.waiting import until

PROGRAM = """
import sys
from pathlib import Path
from cacheapp.downloads.engine.thread_limit import thread_limit
mine = thread_limit(Path(sys.argv[1]), int(sys.argv[2]))
print(sum(mine.acquire() for _ in range(int(sys.argv[3]))), flush=True)
for line in sys.stdin:
    if line == "starving\\n":
        mine.set_starving(starving=True)
        print("said", flush=True)
    if line == "asked\\n":
        print(mine._is_another_starving(), flush=True)
    if line == "acquire\\n":
        print(mine.acquire(), flush=True)
"""


class Other:
    """Another process with slots of its own."""

    def __init__(self, path: Path, count: int, wanted: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(count), str(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.has = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def say(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self._line().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


NewOther = Callable[[int], Other]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "downloads.threads"


@pytest.fixture
def new_other(path: Path) -> Iterator[NewOther]:
    others = []

    def make(wanted: int) -> Other:
        others.append(Other(path, 10, wanted))
        return others[-1]

    yield make
    for other in others:
        other.end()


def _took(mine: ThreadLimit, wanted: int) -> int:
    return sum(mine.acquire() for _ in range(wanted))


def test_all_processes_together_hold_no_more_slots_than_there_are(
    path: Path, new_other: NewOther
) -> None:
    mine = thread_limit(path, 10)
    assert _took(mine, 4) == 4
    assert new_other(4).has == 4
    assert new_other(4).has == 2
    assert not mine.acquire()


def test_the_slots_of_a_killed_process_are_free_at_once(path: Path, new_other: NewOther) -> None:
    other = new_other(10)
    mine = thread_limit(path, 10)
    assert _took(mine, 1) == 0
    other.end()
    until(mine.acquire, "a slot to be free")
    assert _took(mine, 20) == 9


def test_a_released_slot_is_free_for_others(path: Path, new_other: NewOther) -> None:
    mine = thread_limit(path, 10)
    assert _took(mine, 10) == 10
    other = new_other(1)
    assert other.has == 0
    mine.release()
    until(lambda: other.say("acquire") == "True", "the other to have it")


def test_a_process_with_slots_should_yield_to_one_without(
    path: Path, new_other: NewOther, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    mine = thread_limit(path, 10)
    assert _took(mine, 10) == 10
    assert not mine.should_yield()
    other = new_other(1)
    assert other.say("starving") == "said"
    now_s += 0.3
    assert mine.should_yield()
    now_s += 0.9
    assert not mine.should_yield()  # one per second is enough
    now_s += 0.2
    assert mine.should_yield()
    other.end()


class Endless:
    """A job whose files never end: each is queued again after its attempt."""

    def __init__(self, threads: int) -> None:
        self.queue: FileQueue[int] = FileQueue(threads)
        self.over = threading.Event()

    def work(self, file: int, buffer: Buffer) -> AttemptResult:  # noqa: ARG002 (as the pool calls it)
        self.over.wait(0.01)
        return AttemptResult(retry_in_s=0.0)

    def on_attempt_end(self) -> None: ...


def test_a_pool_has_no_more_threads_than_slots_and_yields_one_to_a_process_without(
    path: Path, new_other: NewOther
) -> None:
    pool: ThreadPool[int] = ThreadPool(20, thread_limit=thread_limit(path, 10))
    job = Endless(20)
    pool.add(job)
    pool.feed(job, [("host", n) for n in range(40)])
    until(lambda: pool.active_threads() == 10, "as many threads as slots")
    other = new_other(1)
    assert other.has == 0
    other.say("starving")
    until(lambda: other.say("acquire") == "True", "a thread to give up its slot")
    other.end()

    def refilled() -> bool:
        pool.refill()  # like the coordinator at each poll
        return pool.active_threads() == 10

    until(refilled, "the slot to be taken again")
    pool.close(job)
    pool.remove(job)


class Broken(Endless):
    """A job that raises in every method."""

    def __init__(self, threads: int, kind: type[BaseException]) -> None:
        super().__init__(threads)
        self.kind = kind
        self.tried: list[int] = []
        self.told = 0

    def work(self, file: int, buffer: Buffer) -> AttemptResult:  # noqa: ARG002
        self.tried.append(file)
        raise self.kind("work")

    def on_attempt_end(self) -> None:
        self.told += 1
        raise self.kind("worked")


@pytest.mark.parametrize("kind", [OSError, SystemExit])
def test_no_exception_of_a_job_ends_a_thread(
    path: Path, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheapp.downloads.engine.thread_pool._IDLE_S", 60)
    pool: ThreadPool[int] = ThreadPool(1, thread_limit=thread_limit(path, 1))
    job = Broken(1, kind)
    pool.add(job)
    pool.feed(job, [("host", n) for n in range(3)])
    until(lambda: job.told == 3, "all files to be tried")
    assert job.tried == [0, 1, 2]
    until(lambda: "threads=1/1 active=0" in repr(pool), "the thread to wait for more")
    assert pool.waiting(job) == (0, 0)
    pool.remove(job)


class Faulty(ThreadLimit):
    """The slots of a file system that fails after the first one."""

    def should_yield(self) -> bool:
        raise OSError("the file system is gone")


def test_a_thread_that_cannot_acquire_its_slot_is_not_counted(path: Path) -> None:
    faulty = Faulty(path, 2)
    pool: ThreadPool[int] = ThreadPool(2, thread_limit=faulty)
    job = Endless(2)
    pool.add(job)
    pool.feed(job, [("host", 1), ("host", 2)])
    until(lambda: "threads=0/2" in repr(pool), "the threads to end")
    until(lambda: _took(ThreadLimit(path, 2), 2) == 2, "their slots to be free")
    pool.close(job)


def test_a_pool_without_threads_has_capacity_while_a_slot_is_free(
    path: Path, new_other: NewOther
) -> None:
    other = new_other(10)  # suspended, as far as others can see
    pool: ThreadPool[int] = ThreadPool(20, thread_limit=thread_limit(path, 10))
    assert not pool.has_capacity()
    pool.refill()
    third = new_other(0)
    assert third.say("asked") == "True"  # to release a slot, though no job waits for it here
    pool.refill()
    assert third.say("asked") == "False"  # it is no longer refused
    other.end()
    until(pool.has_capacity, "the slot to be free")
    assert new_other(10).has == 10  # testing the capacity keeps no slot


def test_a_pool_with_threads_has_capacity_without_another_slot(
    path: Path, new_other: NewOther
) -> None:
    pool: ThreadPool[int] = ThreadPool(20, thread_limit=thread_limit(path, 10))
    job = Endless(20)
    pool.add(job)
    pool.feed(job, [("host", n) for n in range(40)])
    until(lambda: pool.active_threads() == 10, "as many threads as slots")
    assert new_other(1).has == 0
    assert pool.has_capacity()  # its threads are shared among its jobs
    pool.close(job)
    pool.remove(job)


def test_without_the_slot_file_only_the_threads_of_this_process_are_counted(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    mine = ThreadLimit(tmp_path / "in-the-way" / "slots", 3)
    assert _took(mine, 5) == 3
    mine.release()
    assert _took(mine, 5) == 1
