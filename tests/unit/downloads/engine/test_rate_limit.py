"""Rate limits: turns at the limited rate, on a simulated clock and between real processes."""

import heapq
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.backends.local.slot_file import open_slot_file
from cacheapp.downloads.engine.rate_limit import (
    RateLimiter,
    Schedule,
    SharedSchedule,
    Throttle,
    process_limits,
)
from cacheapp.processes.waiting import until

RATE = 1_000_000
TURN = RateLimiter(RATE, Schedule()).read_bytes


class Reader:
    """A thread of a simulation, whose origin sends `rate` bytes per second."""

    def __init__(self, name: str, rate: float) -> None:
        self.name = name
        self.rate = rate
        self.read_to_s = 0.0

    def arrived(self, now_s: float, most: int) -> int:
        """Return how much can be read now."""
        found = min(most, int((now_s - self.read_to_s) * self.rate))
        self.read_to_s = max(self.read_to_s, now_s - 1.0)  # the kernel's buffer is limited
        self.read_to_s += found / self.rate
        return found


def _simulate(readers: list[Reader], for_s: float) -> tuple[Counter[str], list[tuple[float, int]]]:
    """Let readers take turns; return the bytes of each, and when how many were read."""
    schedule = Schedule()
    events = [(0.0, number, False) for number in range(len(readers))]
    expected = [TURN] * len(readers)
    got: Counter[str] = Counter()
    reads = []
    while events and events[0][0] <= for_s:
        now_s, number, has_turn = heapq.heappop(events)
        reader = readers[number]
        if has_turn:
            count = reader.arrived(now_s, expected[number])
            schedule.give_back((expected[number] - count) / RATE)
            expected[number] = min(TURN, max(2 * count, 4096))
            got[reader.name] += count
            reads.append((now_s, count))
            heapq.heappush(events, (now_s + 0.001, number, False))
        else:
            begin_s = schedule.reserve(expected[number] / RATE, now_s)
            assert begin_s is not None
            heapq.heappush(events, (max(begin_s, now_s), number, True))
    return got, reads


@pytest.mark.parametrize("count", [1, 2, 32])
def test_readers_use_the_whole_rate_and_no_more_in_any_second(count: int) -> None:
    got, reads = _simulate([Reader(str(n), 1e9) for n in range(count)], 20.0)
    assert sum(got.values()) == pytest.approx(20 * RATE, rel=0.03)
    for first in range(0, len(reads), 50):
        begin_s = reads[first][0]
        within = sum(size for at_s, size in reads[first:] if at_s < begin_s + 1.0)
        assert within <= 1.1 * RATE + TURN


def test_readers_get_equal_shares() -> None:
    got, _ = _simulate([Reader(str(n), 1e9) for n in range(10)], 20.0)
    assert len(got) == 10
    assert max(got.values()) - min(got.values()) <= 2 * TURN


def test_a_slow_origin_takes_no_share_from_the_others_and_keeps_its_own() -> None:
    slow = 20_000.0
    got, _ = _simulate([Reader("slow", slow), Reader("one", 1e9), Reader("two", 1e9)], 20.0)
    assert got["slow"] == pytest.approx(20 * slow, rel=0.1)
    assert got["one"] == pytest.approx(10 * (RATE - slow), rel=0.05)
    assert got["two"] == pytest.approx(got["one"], rel=0.02)


class FakeTime:
    """A clock that waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(clock, "boot_s", lambda: self.now_s)

    def wait(self, wait_s: float) -> None:
        self.now_s += wait_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def _body(size: int) -> Callable[[memoryview], int]:
    left = [size]

    def read(view: memoryview) -> int:
        count = min(len(view), left[0])
        left[0] -= count
        return count

    return read


@pytest.mark.parametrize("length", [500_000, None], ids=["known-length", "unknown-length"])
def test_a_body_takes_its_time_at_the_narrowest_limit(time: FakeTime, length: int | None) -> None:
    wide, narrow = RateLimiter(10 * RATE, Schedule()), RateLimiter(RATE, Schedule())
    throttle = Throttle([wide]).with_job_limit(narrow.rate)
    read = throttle.limited(_body(500_000), length, time.wait)
    began_s, view, total = time.now_s, memoryview(bytearray(256 * 1024)), 0
    while count := read(view):
        assert count <= narrow.read_bytes
        total += count
    assert total == 500_000
    assert time.now_s - began_s == pytest.approx(0.5 - 0.1, abs=0.05)


def test_without_a_limit_the_same_function_reads() -> None:
    read = _body(1)
    assert Throttle().limited(read, 1, lambda _s: None) is read
    assert not Throttle().with_job_limit(None)


def test_a_read_that_fails_or_a_wait_that_is_stopped_returns_its_bytes(time: FakeTime) -> None:
    limiter = RateLimiter(RATE, Schedule())
    limiter.schedule.reserve(5.0, time.now_s)

    def stopped(_wait_s: float) -> None:
        raise InterruptedError

    def broken(_view: memoryview) -> int:
        raise ConnectionResetError

    view = memoryview(bytearray(4096))
    with pytest.raises(InterruptedError):
        Throttle([limiter]).limited(_body(1), None, stopped)(view)
    with pytest.raises(ConnectionResetError):
        Throttle([limiter]).limited(broken, None, time.wait)(view)
    assert limiter.schedule.reserve(0.0, time.now_s) == pytest.approx(1000.0 + 5.0 - 0.1)


PROGRAM = """
import fcntl, sys
from pathlib import Path
from cacheapp import clock
from cacheapp.backends.local.slot_file import open_slot_file
from cacheapp.downloads.engine.rate_limit import SharedSchedule
schedule = SharedSchedule(Path(sys.argv[1]))
for line in sys.stdin:
    if line == "lock\\n":
        schedule._file.try_lock(0)
    else:
        schedule.reserve(float(line), clock.boot_s())
    print(flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "downloads.rate"


@pytest.fixture
def other(path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def _order(other: "subprocess.Popen[str]", line: str) -> None:
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(f"{line}\n")
    other.stdin.flush()
    other.stdout.readline()


def test_processes_share_one_schedule_that_outlives_them(
    path: Path, other: "subprocess.Popen[str]"
) -> None:
    mine = SharedSchedule(path)
    now_s = clock.boot_s()
    assert mine.reserve(100.0, now_s) == pytest.approx(now_s, abs=0.2)
    _order(other, "50")
    other.kill()
    other.wait()
    assert mine.reserve(0.0, now_s) == pytest.approx(now_s + 150, abs=1)
    mine.give_back(60.0)
    assert mine.reserve(0.0, now_s) == pytest.approx(now_s + 90, abs=1)


def test_a_process_that_is_killed_or_suspended_with_the_lock_blocks_no_thread(
    path: Path, other: "subprocess.Popen[str]"
) -> None:
    mine = SharedSchedule(path)
    _order(other, "lock")
    os.kill(other.pid, signal.SIGSTOP)
    assert mine.reserve(1.0, clock.boot_s()) is None  # the caller tries again, or is aborted
    other.kill()
    other.wait()
    until(lambda: mine.reserve(1.0, clock.boot_s()) is not None, "the lock of the dead")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 16, b"short", bytes(8) + b"\x00\x00\x00\x00\x00\x00\xf8\x7f"]
)
def test_a_damaged_file_or_one_of_an_earlier_boot_counts_as_empty(
    path: Path, content: bytes
) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    now_s = clock.boot_s()
    schedule = SharedSchedule(path)
    assert schedule.reserve(1.0, now_s) == pytest.approx(now_s - 0.1)
    assert schedule.reserve(1.0, now_s) == pytest.approx(now_s + 0.9)


def test_without_the_file_the_limit_is_the_processs(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.touch()
    schedule = SharedSchedule(path)
    now_s = clock.boot_s()
    assert schedule.reserve(1.0, now_s) == pytest.approx(now_s - 0.1)
    assert schedule.reserve(1.0, now_s) == pytest.approx(now_s + 0.9)
    assert "no machine-wide limit of the download rate" in caplog.text


def test_a_schedule_whose_descriptor_was_closed_opens_its_file_again(path: Path) -> None:
    schedule = SharedSchedule(path)
    now_s = clock.boot_s()
    schedule.reserve(10.0, now_s)
    os.close(open_slot_file(path, 1).descriptor)  # as a program that becomes a daemon
    assert schedule.reserve(1.0, now_s) == pytest.approx(now_s + 10, abs=0.2)


def test_all_jobs_of_a_process_share_its_limits(path: Path) -> None:
    one, other = (process_limits(path, RATE, RATE).limiters for _ in range(2))
    assert [it.schedule for it in one] == [it.schedule for it in other]
    assert [type(it.schedule) for it in one] == [Schedule, SharedSchedule]
    assert process_limits(path, None, None).limiters == ()
