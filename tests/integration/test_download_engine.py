"""A run of many files by threads, against a real origin."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.downloads.engine import Item, Plan, Progress, Report, Run
from cacheapp.downloads.pool import Pool
from cacheapp.downloads.retrying import Retries
from cacheapp.downloads.states import FileState
from cacheapp.downloads.wanted import Limits
from cacheapp.lab.waiting import until
from tests.origin import Origin, body

LIMITS = Limits(max_bytes=10 * 2**20)
HOURS = Limits(max_bytes=10 * 2**20, read_s=3600, stall_s=3600)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


NewRun = Callable[..., Run]


@pytest.fixture
def new_run(origin: Origin, tmp_path: Path) -> Iterator[NewRun]:
    runs = []

    def make(paths: list[str], threads: int, limits: Limits = LIMITS) -> Run:
        items = tuple(
            Item(row=100 + number, position=number, url=origin.url + path, name=f"file{number}")
            for number, path in enumerate(paths)
        )
        plan = Plan(
            *(uuid.uuid4(), tmp_path / "job", threads, frozenset([origin.url]), items),
            retries=Retries(tries=1),
        )
        run = Run(plan, limits, lambda: None, Pool(threads))
        runs.append(run)
        return run

    yield make
    for run in runs:
        run.stop("the test is over")
        assert run.join(10)
        run.clean()


def _ended(run: Run) -> dict[str, Report]:
    until(lambda: run.ended, f"{run} to end", 30)
    return {report.item.name: report for report in run.changes()[0]}


def test_all_files_arrive_whole_whatever_the_number_of_threads(
    origin: Origin, new_run: NewRun, tmp_path: Path
) -> None:
    run = new_run([f"/file/x?n={n}&bytes={n * 1000}" for n in range(50)], threads=8)
    run.start()
    reports = _ended(run)
    assert {report.state for report in reports.values()} == {FileState.SUCCEEDED}
    for n in range(50):
        found = (tmp_path / "job" / f"file{n}").read_bytes()
        assert found == body({"n": str(n), "bytes": str(n * 1000)})
        assert reports[f"file{n}"].bytes_done == n * 1000
        assert reports[f"file{n}"].item.row == 100 + n
    assert len(list((tmp_path / "job").iterdir())) == 50
    assert run.changes()[1] == Progress(files_done=50, bytes_done=sum(range(50)) * 1000)
    assert origin.connections <= 8


def test_files_are_fetched_at_the_same_time(origin: Origin, new_run: NewRun) -> None:
    run = new_run(["/hang/x"] * 20, threads=20, limits=HOURS)
    run.start()
    until(lambda: len(origin.asked) == 20, "20 requests in flight at once")
    assert run.changes()[1] == Progress()


def test_one_bad_file_harms_no_other(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(["/file/a", "/cut/b", "/status/c?say=500+Oops", "/file/d"], threads=2)
    run.start()
    reports = _ended(run)
    assert [reports[f"file{n}"].state.value for n in range(4)] == [
        *("succeeded", "failed", "failed", "succeeded"),
    ]
    assert reports["file1"].error == "broke off after 500 bytes of 1000"
    assert reports["file2"].error == "answered 500 Oops"
    assert {path.name for path in (tmp_path / "job").iterdir()} == {"file0", "file3"}
    assert run.changes()[1] == Progress(files_done=2, files_failed=2, bytes_done=2000)


def test_a_stop_wakes_threads_that_wait_and_begins_nothing_more(
    origin: Origin, new_run: NewRun, tmp_path: Path
) -> None:
    paths = ["/hang/x", "/hang-in-body/x?bytes=9999999", "/trickle/x?bytes=99999"] * 3
    run = new_run([*paths, *["/file/never"] * 50], threads=9, limits=HOURS)
    run.start()
    until(lambda: len(origin.asked) == 9, "all threads to ask")
    until(lambda: len(list((tmp_path / "job").iterdir())) == 6, "six partial files")
    run.stop("cancelled", aborted=FileState.CANCELLED)
    reports = _ended(run)
    assert {report.state for report in reports.values()} == {FileState.CANCELLED}
    assert len(reports) == 9  # the other 50 were never begun
    assert len(origin.asked) == 9
    assert list((tmp_path / "job").iterdir()) == []


def test_a_transfer_that_stalls_fails_alone(new_run: NewRun) -> None:
    stalls = Limits(max_bytes=10**6, read_s=3600, stall_s=0.3)
    run = new_run(["/trickle/x?bytes=99999", "/file/x"], threads=2, limits=stalls)
    run.start()

    def ended() -> bool:
        run.enforce()
        return run.ended

    until(ended, "the trickle to be given up")
    reports = _ended(run)
    assert reports["file0"].state is FileState.FAILED
    assert reports["file0"].error == "stalled: hardly anything came for 0.3 s"
    assert reports["file1"].state is FileState.SUCCEEDED


def test_a_report_stays_until_it_is_recorded(new_run: NewRun) -> None:
    run = new_run(["/file/a", "/file/b"], threads=1)
    run.start()
    until(lambda: run.ended, "the run to end")
    reports, _ = run.changes()
    assert len(reports) == 2
    assert run.changes()[0] == reports  # what could not be written is told again
    run.recorded(reports[:1])
    assert run.changes()[0] == reports[1:]


def test_bytes_on_their_way_are_counted(new_run: NewRun) -> None:
    size = 2 * 2**20
    run = new_run([f"/hang-in-body/x?bytes={size}"], threads=1, limits=HOURS)
    run.start()
    until(lambda: run.changes()[1].bytes_done >= size // 4, "bytes to be counted")
    assert run.changes()[1].files_done == 0


def test_a_directory_that_cannot_be_made_is_an_error_before_anything_is_asked(
    origin: Origin, new_run: NewRun, tmp_path: Path
) -> None:
    (tmp_path / "job").write_text("in the way")
    run = new_run(["/file/a"], threads=1)
    with pytest.raises(FileExistsError):
        run.start()
    assert run.ended
    assert origin.asked == []
