"""A run of many files with threads, against a real origin."""

import dataclasses
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from pytest_django.fixtures import Settings

from cacheapp.downloads.engine.estimate import ProgressMeter
from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.plan import FileReport, Item, JobProgress, Plan, RetryPolicy
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.states import FileState
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body

LIMITS = TransferLimits(max_bytes=10 * 2**20)
HOURS = TransferLimits(max_bytes=10 * 2**20, read_s=3600, stall_s=3600)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


NewRun = Callable[..., JobRun]


@pytest.fixture
def new_run(origin: Origin, tmp_path: Path) -> Iterator[NewRun]:
    runs = []

    def make(paths: list[str], threads: int, limits: TransferLimits = LIMITS) -> JobRun:
        items = tuple(
            Item(row=100 + number, position=number, url=origin.url + path, name=f"file{number}")
            for number, path in enumerate(paths)
        )
        plan = Plan(
            *(uuid.uuid4(), tmp_path / "job", threads, frozenset([origin.url]), items),
            retries=RetryPolicy(tries=1),
        )
        run = JobRun(plan, limits, lambda: None, ThreadPool(threads))
        runs.append(run)
        return run

    yield make
    for run in runs:
        run.stop("the test is over")
        assert run.join(60)
        run.clean()


def _ended(run: JobRun) -> dict[str, FileReport]:
    until(lambda: run.ended, f"{run} to end", 100)
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
    run.clean()
    assert len(list((tmp_path / "job").iterdir())) == 50
    size = sum(range(50)) * 1000
    assert run.changes()[1] == JobProgress(files_done=50, bytes_done=size, bytes_total=size)
    assert origin.connections <= 8


def test_files_are_fetched_at_the_same_time(origin: Origin, new_run: NewRun) -> None:
    run = new_run(["/hang/x"] * 20, threads=20, limits=HOURS)
    run.start()
    until(lambda: len(origin.asked) == 20, "20 requests in flight at once")
    assert run.changes()[1] == JobProgress()


def test_one_bad_file_harms_no_other(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(["/file/a", "/cut/b", "/status/c?say=500+Oops", "/file/d"], threads=2)
    run.start()
    reports = _ended(run)
    assert [reports[f"file{n}"].state.value for n in range(4)] == [
        *("succeeded", "failed", "failed", "succeeded"),
    ]
    assert reports["file1"].error == "ended after 500 of 1000 bytes"
    assert reports["file2"].error == "responded with 500 Oops"
    assert {path.name for path in (tmp_path / "job").rglob("*") if path.is_file()} == (
        {"file0", "file3"}
    )
    assert run.changes()[1] == JobProgress(2, 2, bytes_done=2000, bytes_total=2000)


def test_a_stop_wakes_threads_that_wait_and_begins_nothing_more(
    origin: Origin, new_run: NewRun, tmp_path: Path
) -> None:
    paths = ["/hang/x", "/hang-in-body/x?bytes=9999999", "/trickle/x?bytes=99999"] * 3
    run = new_run([*paths, *["/file/never"] * 50], threads=9, limits=HOURS)
    run.start()
    until(lambda: len(origin.asked) == 9, "all threads to ask")
    until(lambda: len(list((tmp_path / "job").rglob("*.part"))) == 6, "six partial files")
    run.stop("cancelled", aborted=FileState.CANCELLED)
    reports = _ended(run)
    assert {report.state for report in reports.values()} == {FileState.CANCELLED}
    assert len(reports) == 9  # the other 50 never began
    assert len(origin.asked) == 9
    assert [path for path in (tmp_path / "job").rglob("*") if path.is_file()] == []


def test_a_transfer_that_stalls_fails_alone(new_run: NewRun) -> None:
    stalls = TransferLimits(max_bytes=10**6, read_s=3600, stall_s=0.3)
    run = new_run(["/trickle/x?bytes=99999", "/file/x"], threads=2, limits=stalls)
    run.start()

    def ended() -> bool:
        if run.changes()[1].files_done:  # on a busy machine the other might be as slow
            run.enforce_limits()
        return run.ended

    until(ended, "the trickle to be given up")
    reports = _ended(run)
    assert reports["file0"].state is FileState.FAILED
    assert reports["file0"].error == "stalled: almost no data for 0.3 s"
    assert reports["file1"].state is FileState.SUCCEEDED


def test_a_report_stays_until_it_is_recorded(new_run: NewRun) -> None:
    run = new_run(["/file/a", "/file/b"], threads=1)
    run.start()
    until(lambda: run.ended, "the run to end")
    reports, _ = run.changes()
    assert len(reports) == 2
    assert run.changes()[0] == reports  # what could not be written is reported again
    run.mark_recorded(reports[:1])
    assert run.changes()[0] == reports[1:]


def test_bytes_on_their_way_are_counted(new_run: NewRun) -> None:
    size = 2 * 2**20
    run = new_run([f"/hang-in-body/x?bytes={size}"], threads=1, limits=HOURS)
    run.start()
    until(lambda: run.changes()[1].bytes_done >= size // 4, "bytes to be counted")
    assert run.changes()[1].files_done == 0


def test_a_directory_that_cannot_be_created_is_an_error_before_any_request(
    origin: Origin, new_run: NewRun, tmp_path: Path
) -> None:
    (tmp_path / "job").write_text("in the way")
    run = new_run(["/file/a"], threads=1)
    with pytest.raises(FileExistsError):
        run.start()
    assert run.ended
    assert origin.asked == []


def _run_of(
    items: list[tuple[str, str]],
    directory: Path,
    pool: ThreadPool[QueuedFile],
    threads: int = 4,
    **more: Any,
) -> JobRun:
    plan = Plan(
        *(uuid.uuid4(), directory, threads, None),
        tuple(Item(n, n, url, name) for n, (url, name) in enumerate(items)),
        networks=read_networks(["127.0.0.0/8"]),
        **more,
    )
    return JobRun(plan, LIMITS, lambda: None, pool)


def test_a_file_that_waits_for_its_next_try_holds_no_thread(origin: Origin, tmp_path: Path) -> None:
    busy = "503 Service Unavailable\r\nRetry-After: 3"
    origin.things["busy"] = Thing([Version(b"at last", '"v"')], refusals=[busy])
    pool: ThreadPool[QueuedFile] = ThreadPool(1)  # one thread in all
    with Origin() as other:  # only the busy host is paused
        items = [(f"{origin.url}/thing/busy", "busy"), (f"{other.url}/file/a", "a")]
        run = _run_of(items, tmp_path / "job", pool)
        run.start()
        reports = _ended(run)
    assert reports["busy"].state is FileState.SUCCEEDED
    assert reports["busy"].tries == 2
    assert (tmp_path / "job" / "busy").read_bytes() == b"at last"
    # The second one was fetched while the first one waited, which came last.
    written = [(tmp_path / "job" / name).stat().st_mtime_ns for name in ("a", "busy")]
    assert written[0] < written[1]
    run.clean()


def test_a_retry_after_that_is_too_long_delays_no_other_file(
    origin: Origin, tmp_path: Path
) -> None:
    away = "503 Service Unavailable\r\nRetry-After: 3600"
    origin.things["away"] = Thing([], refusals=[away] * 9)
    items = [(f"{origin.url}/thing/away/{n}", f"away{n}") for n in range(3)]
    items += [(f"{origin.url}/file/{n}", f"good{n}") for n in range(90)]
    run = _run_of(items, tmp_path / "job", ThreadPool(1), threads=1)
    run.start()
    reports = _ended(run)
    assert [reports[f"away{n}"].error for n in range(3)] == [
        "responded with 503 Service Unavailable; retry after 3600 s, too long to wait"
    ] * 3
    assert run.changes()[1].files_done == 90
    assert len(origin.things["away"].asked) == 3
    run.clean()


def test_a_file_fails_after_its_last_try_and_the_error_counts_them(
    origin: Origin, tmp_path: Path
) -> None:
    origin.things["never"] = Thing([], refusals=["500 Oops"] * 9)
    retries = RetryPolicy(tries=3, first_wait_s=0.01)
    run = _run_of(
        [(f"{origin.url}/thing/never", "x")], tmp_path / "job", ThreadPool(2), retries=retries
    )
    run.start()
    reports = _ended(run)
    assert reports["x"].error == "responded with 500 Oops; tried 3 times"
    assert len(origin.things["never"].asked) == 3
    run.clean()


def test_a_truncated_file_is_resumed_within_a_run(origin: Origin, tmp_path: Path) -> None:
    whole = body({"bytes": "600000"})
    origin.things["cut"] = Thing([Version(whole, '"v"')], cuts=[200_000, 100_000])
    retries = RetryPolicy(first_wait_s=0.01)
    run = _run_of(
        [(f"{origin.url}/thing/cut", "x")], tmp_path / "job", ThreadPool(2), retries=retries
    )
    run.start()
    assert _ended(run)["x"].tries == 3
    asked = [fields.get("range") for fields in origin.things["cut"].asked]
    assert asked == [None, "bytes=200000-", "bytes=300000-"]
    assert (tmp_path / "job" / "x").read_bytes() == whole
    assert run.changes()[1] == JobProgress(1, bytes_done=600_000, bytes_total=600_000)
    run.clean()


def test_a_host_that_answers_429_gets_fewer_requests_at_once(
    origin: Origin, tmp_path: Path
) -> None:
    pool: ThreadPool[QueuedFile] = ThreadPool(8)
    origin.things["fast"] = Thing([Version(b"x", '"v"')], refusals=["429 Too Many Requests"] * 8)
    items = [(f"{origin.url}/thing/fast", f"{n}") for n in range(20)]
    run = _run_of(items, tmp_path / "job", pool, threads=8, retries=RetryPolicy(first_wait_s=0.05))
    run.start()
    reports = _ended(run)
    assert {report.state for report in reports.values()} == {FileState.SUCCEEDED}
    host = pool._hosts[origin.url.removeprefix("http://")]  # noqa: SLF001 (its only witness)
    assert host.reduced_at_s > 0
    until(lambda: host.active == 0, "the last attempt to be over")
    run.clean()


def test_jobs_share_the_threads_fairly(origin: Origin, tmp_path: Path) -> None:
    pool: ThreadPool[QueuedFile] = ThreadPool(4)
    slow = [(f"{origin.url}/file/{n}?delay_ms=20", f"{n}") for n in range(6000)]  # half a minute
    large = _run_of(slow, tmp_path / "large", pool)
    large.start()
    until(lambda: large.changes()[1].files_done > 4, "the large job to have all threads")
    small = _run_of(slow[:10], tmp_path / "small", pool)
    small.start()
    until(lambda: small.ended, "the small job to end")
    assert not large.ended  # it did not wait for the large one
    assert small.changes()[1].files_done == 10
    large.stop("that was enough")
    until(lambda: large.ended, "the large job to end")
    small.clean()
    large.clean()


def test_a_new_job_gets_the_next_thread_where_all_are_taken(origin: Origin, tmp_path: Path) -> None:
    pool: ThreadPool[QueuedFile] = ThreadPool(1)
    called: list[bool] = []
    pool.on_thread_free = lambda: called.append(True)
    slow = [(f"{origin.url}/file/{n}?delay_ms=30", f"{n}") for n in range(1000)]  # half a minute
    large = _run_of(slow, tmp_path / "large", pool)
    assert pool.reserve()
    large.start()
    until(lambda: not pool.reserve(), "all threads to be taken")
    until(lambda: called, "a thread to be kept free")
    done = large.changes()[1].files_done
    assert not threading.Event().wait(0.15)  # time for five files of the large job
    assert large.changes()[1].files_done == done
    assert pool.reserve()
    small = _run_of(slow[:1], tmp_path / "small", pool)
    small.start()
    until(lambda: small.ended, "the small job to end")
    until(lambda: large.changes()[1].files_done > done, "the large job to go on")
    large.stop("enough")
    assert large.join(60)
    small.clean()
    large.clean()


def test_a_run_is_fed_while_it_runs_and_ends_after_finish_feeding(
    origin: Origin, tmp_path: Path
) -> None:
    run = _run_of([], tmp_path / "job", ThreadPool(4), more=True)
    run.start()
    assert not run.ended
    for n in range(30):
        run.feed([Item(n, n, f"{origin.url}/file/{n}", f"{n}")])
        assert run.wait_for_queue_space(60)
    run.finish_feeding()
    assert len(_ended(run)) == 30
    run.clean()


def test_idle_threads_end(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheapp.downloads.engine.thread_pool._IDLE_S", 0.05)
    pool: ThreadPool[QueuedFile] = ThreadPool(3)
    run = _run_of([(f"{origin.url}/file/{n}", f"{n}") for n in range(9)], tmp_path / "job", pool)
    run.start()
    _ended(run)
    until(lambda: "threads=0/3" in repr(pool), "the threads to end")
    run.clean()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_s": 0.01}, "took longer than 0.01 s"),
        ({"max_bytes": 1000}, "has more than 1000 bytes"),
    ],
)
def test_a_job_that_takes_too_much_is_ended(
    origin: Origin, tmp_path: Path, limits: dict[str, Any], reason: str
) -> None:
    items = [(f"{origin.url}/file/a?bytes=900", "a"), (f"{origin.url}/file/b?bytes=900", "b")]
    waiting = [(f"{origin.url}/hang/{n}", f"h{n}") for n in range(2)]
    run = _run_of([*items, *waiting], tmp_path / "job", ThreadPool(4), **limits)
    run.start()
    until(lambda: run.changes()[1].files_done == 2, "the small files")

    def stopped() -> bool:
        run.enforce_limits()
        return run.stopped is not None

    until(stopped, "the run to be stopped")
    assert run.stopped == reason
    assert run.join(60)
    run.clean()


def test_a_file_that_got_its_name_in_a_killed_run_is_not_fetched_again(
    origin: Origin, tmp_path: Path
) -> None:
    items = [(f"{origin.url}/file/{name}", name) for name in ("mine", "foreign")]
    first = _run_of(items[:1], tmp_path, ThreadPool(1), resumable=True)
    first.start()
    assert _ended(first)["mine"].state is FileState.SUCCEEDED
    (tmp_path / "foreign").write_text("of somebody else")
    plan = dataclasses.replace(first.plan, items=(), token=2)
    plan = dataclasses.replace(
        plan, items=tuple(Item(n, n, url, name) for n, (url, name) in enumerate(items))
    )
    before = len(origin.asked)
    second = JobRun(plan, LIMITS, lambda: None, ThreadPool(1))  # like a kill: nothing was recorded
    second.start()
    reports = _ended(second)
    assert reports["mine"].state is FileState.SUCCEEDED
    assert (reports["mine"].bytes_done, reports["mine"].sha256) == (
        *(1000, hashlib.sha256(body({})).hexdigest()),
    )
    assert reports["foreign"].error == "foreign already exists; it was not replaced"
    assert [path for _, path in origin.asked[before:]] == ["/file/foreign"]
    second.clean()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "foreign"}
    first.clean()


def test_a_disk_error_fails_that_file_and_costs_no_thread(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "loop").symlink_to("loop")
    items = [(f"{origin.url}/file/{n}", f"loop/{n}") for n in range(3)]
    pool: ThreadPool[QueuedFile] = ThreadPool(1)
    directory = tmp_path / "job"
    run = _run_of(
        [*items, (f"{origin.url}/file/x", "x")], directory, pool, token=2, resumable=True, own=True
    )
    run.start()
    reports = _ended(run)
    assert {reports[f"loop/{n}"].error for n in range(3)} == {
        "OSError: Too many levels of symbolic links"
    }
    assert reports["x"].state is FileState.SUCCEEDED
    assert run.changes()[1] == JobProgress(1, 3, bytes_done=1000, bytes_total=1000)
    assert origin.asked == [("GET", "/file/x")]
    run.clean()


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_any_exception_of_an_attempt_becomes_the_report_of_its_file(
    origin: Origin, tmp_path: Path, kind: type[BaseException]
) -> None:
    def sign(url: str) -> dict[str, str]:
        if url.endswith("bad"):
            raise kind("no")
        return {}

    items = tuple(
        Item(number, number, f"{origin.url}/file/{name}", name)
        for number, name in enumerate(("bad", "good"))
    )
    plan = Plan(uuid.uuid4(), tmp_path / "job", 1, frozenset([origin.url]), items)
    run = JobRun(plan, LIMITS, lambda: None, ThreadPool(1), sign)
    run.start()
    reports = _ended(run)
    assert (reports["bad"].state, reports["bad"].error, reports["bad"].tries) == (
        *(FileState.FAILED, f"internal error: {kind.__name__}", 1),
    )
    assert reports["good"].state is FileState.SUCCEEDED
    run.clean()
    assert {path.name for path in (tmp_path / "job").iterdir()} == {"good"}


def test_the_current_progress_of_a_run_is_in_the_shared_cache(
    new_run: NewRun, settings: Settings
) -> None:
    run = new_run(["/hang-in-body/x?bytes=2000000"], threads=1, limits=HOURS)
    run.start()
    until(lambda: run.changes()[1].bytes_done > 0, "bytes to come")
    live_progress.publish(run, ProgressMeter(), 1)
    found = live_progress.read(run.plan.job)
    assert found is not None
    assert (found["files_moving"], found["retries"]) == (1, 0)
    (file,) = found["moving"]
    assert (file["name"], file["bytes_total"]) == ("file0", 2_000_000)
    assert file["bytes_done"] > 0
    cache.clear()
    assert live_progress.read(run.plan.job) is None  # and nothing else happens


def test_a_cache_that_fails_does_no_harm(new_run: NewRun, settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "no.such.Backend"}}
    run = new_run(["/file/x"], threads=1)
    live_progress.publish(run, ProgressMeter(), 1)
    assert live_progress.read(run.plan.job) is None
