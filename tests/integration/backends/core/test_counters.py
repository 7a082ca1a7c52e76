"""The counters, over real processes."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheapp.backends.core.counters import BREAKER_OPEN_NOW, HITS, MISSES, Counters, counters
from cacheapp.processes.waiting import until

COUNT = """
import os, sys
from pathlib import Path
from cacheapp.backends.core.counters import BREAKER_OPEN_NOW, HITS, counters
mine = counters(Path(sys.argv[1]))
mine.set_gauge(BREAKER_OPEN_NOW, 1)
for _ in range(int(sys.argv[2])):
    mine.add(HITS)
print(mine._index, flush=True)
sys.stdin.read()
"""


def _process(path: Path, times: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COUNT, str(path), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _row(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_the_sum_is_that_of_all_processes_living_and_killed(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    here = counters(path)
    here.add(HITS, 5)
    processes = [_process(path, 1000) for _ in range(3)]
    try:
        rows = {_row(process) for process in processes}
        assert len(rows) == 3
        assert here.totals()["hits"] == 3005
        assert here.totals()["breaker_open_now"] == 3
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert here.totals()["hits"] == 3005
        assert here.totals()["breaker_open_now"] == 0
        with _process(path, 10) as successor:
            assert _row(successor) in rows
            assert here.totals()["hits"] == 3015
            successor.communicate()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Let threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_of_one_process_lose_no_count(tmp_path: Path, switching_often: None) -> None:
    here = counters(tmp_path / "counters")

    def count() -> None:
        for _ in range(20_000):
            here.add(MISSES)
            here.row[HITS] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert here.totals()["misses"] == here.totals()["hits"] == 80_000


def test_a_signal_handler_that_counts_within_a_count_loses_none(tmp_path: Path) -> None:
    here = counters(tmp_path / "counters")
    handled = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        here.add(HITS)
        here.row[MISSES] += 1

    before = signal.signal(signal.SIGVTALRM, handle)
    counted = 0
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
        while handled < 100:
            counted += 1
            here.add(HITS)
            here.row[MISSES] += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert here.totals()["hits"] == here.totals()["misses"] == counted + handled


def _count_in_child(path: Path, times: int) -> None:
    for _ in range(times):
        counters(path).add(HITS)
    os._exit(0)


def test_a_forked_child_counts_in_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    here = counters(path)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_count_in_child, args=(path, 5000)) for _ in range(4)]
    for child in children:
        child.start()
    for _ in range(5000):
        here.add(HITS)
    for child in children:
        child.join(100)
    assert here.totals()["hits"] == 25_000


def test_a_gauge_of_this_process_is_set_not_added(tmp_path: Path) -> None:
    here = counters(tmp_path / "counters")
    here.set_gauge(BREAKER_OPEN_NOW, 1)
    here.set_gauge(BREAKER_OPEN_NOW, 1)
    assert here.totals()["breaker_open_now"] == 1
    here.set_gauge(BREAKER_OPEN_NOW, 0)
    assert here.totals()["breaker_open_now"] == 0


def test_an_unusable_directory_is_logged_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        here = Counters(tmp_path / "file" / "counters")
        here.add(HITS)
    assert "counting for this process only" in caplog.text
    assert here.totals()["hits"] == 1


HOLD_ALL = """
import fcntl, os, sys
from cacheapp.backends.core.counters import _ROWS
number = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(number, fcntl.LOCK_EX, _ROWS, 0)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_finds_no_free_row_still_counts_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "counters"
    with _process(path, 5) as first:  # not this process, which would keep its row
        _row(first)
        first.communicate()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_ALL, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with caplog.at_level(logging.WARNING):
            here = Counters(path)
            here.add(HITS, 3)
        assert "all 512 rows are in use" in caplog.text
        assert here.totals()["hits"] == 8
        other.communicate()


def test_the_file_is_created_by_the_first_count_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "counters"
    here = counters(path)
    assert set(here.totals().values()) == set(here.own().values()) == {0}
    assert not path.parent.exists()  # nothing was counted
    here.add(HITS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_waiting_in_vain_names_what_was_waited_for() -> None:
    with pytest.raises(TimeoutError, match=r"timed out after 0\.01 s waiting for the moon"):
        until(lambda: False, "the moon", within_s=0.01)


_LOST = """
import ctypes, fcntl, os, sys
from pathlib import Path
from cacheapp.backends.core.counters import HITS, counters
mine = counters(Path(sys.argv[1]))
mine.add(HITS)
number = mine._file.descriptor
other = os.open(sys.argv[1] + ".other", os.O_RDWR | os.O_CREAT, 0o600)
os.dup2(other, number)
os.close(other)
release, done = os.pipe()
ready, child_ready = os.pipe()
child = os.fork()
if child == 0:
    mine.add(HITS)
    os.write(child_ready, b"1")
    os.close(done)
    os.read(release, 1)
    os._exit(0)
os.read(ready, 1)
fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if the child has locked a part
os.close(done)
os.waitpid(child, 0)
print(mine.totals()["hits"])
"""


def test_a_forked_child_locks_no_file_that_has_the_number_of_the_closed_one(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOST, str(tmp_path / "counters")],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"
