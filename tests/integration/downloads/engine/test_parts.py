"""One large file in parallel parts: whole or not at all, from one representation, each byte once."""

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.plan import RetryPolicy
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.range_journal import merge
from cacheapp.processes.waiting import until
from tests.integration.downloads.engine.part_jobs import (
    LIMITS,
    NEW,
    PARTS,
    SIZE,
    V1,
    V2,
    WHOLE,
    PartsJob,
    parts_job,
    requested,
    size_of,
)
from tests.objects import Thing, Version
from tests.origin import Origin

ROOT = Path(__file__).parents[4]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def job(origin: Origin, tmp_path: Path) -> Iterator[PartsJob]:
    with parts_job(origin, tmp_path / "job") as found:
        yield found


def _gated(job: PartsJob, *versions: Version, **options: object) -> tuple[Thing, threading.Event]:
    """Serve an object of whose bodies only the first half is sent until the gate is open."""
    gate = threading.Event()
    thing = Thing([*versions] or [V1], takes_s=0.01, gate=gate, **options)  # type: ignore[arg-type]
    job.origin.things["x"] = thing
    return thing, gate


def _held(job: PartsJob, thing: Thing) -> None:
    """Wait until all connections are open, and have brought bytes."""
    until(lambda: thing.active >= PARTS, f"{PARTS} connections")
    until(lambda: len(job.recorded()) > 1, "several parts to be recorded")


def _once(thing: Thing) -> bool:
    """Return whether no byte is requested twice."""
    spans = tuple(requested(thing))
    return size_of(merge(spans)) == size_of(spans)


def test_a_large_file_is_fetched_over_several_connections_at_once(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = job.start()
    until(lambda: thing.active >= PARTS, f"{PARTS} connections")
    gate.set()
    job.assert_whole(job.end(run)[0])
    job.assert_clean()
    assert thing.most_active >= PARTS
    assert thing.asked[0].get("range") is None
    assert {it.get("if-range") for it in thing.asked[1:]} == {'"v1"'}
    assert _once(Thing([], asked=thing.asked[1:]))


def test_progress_counts_the_bytes_of_all_parts(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = job.start()
    _held(job, thing)

    def shown() -> set[tuple[int, int | None]]:
        """Return the bytes done and in total, as the file, the job and the disk have them."""
        ((name, done, total),), progress = run.active_files(), run.changes()[1]
        assert name == "x"
        found = (progress.bytes_done, progress.bytes_total)
        return {(done, total), found, (size_of(job.recorded()), SIZE)}

    until(lambda: len(shown()) == 1, "the same progress everywhere")
    gate.set()
    job.assert_whole(job.end(run)[0])


def test_with_one_thread_a_large_file_is_one_request(job: PartsJob) -> None:
    thing = job.origin.things["x"] = Thing([V1])
    job.assert_whole(job.run(threads=1))
    assert [it.get("range") for it in thing.asked] == [None]
    job.assert_clean()


@pytest.mark.parametrize(
    ("version", "parts", "limits"),
    [
        pytest.param(V1, 1, LIMITS, id="off"),
        pytest.param(V1, 4, TransferLimits(10**8), id="too-small"),
        pytest.param(Version(WHOLE), 4, LIMITS, id="no-validator"),
        pytest.param(Version(WHOLE, 'W/"v1"'), 4, LIMITS, id="weak-validator"),
        pytest.param(
            Version(WHOLE, '"v1"', headers={"Accept-Ranges": "none"}), 4, LIMITS, id="no-ranges"
        ),
    ],
)
def test_other_files_are_one_request(
    job: PartsJob, version: Version, parts: int, limits: TransferLimits
) -> None:
    thing = job.origin.things["x"] = Thing([version])
    job.assert_whole(job.run(parts=parts, limits=limits))
    assert [it.get("range") for it in thing.asked] == [None]
    job.assert_clean()


def test_many_large_files_open_no_more_connections_than_there_are_threads(job: PartsJob) -> None:
    names = [f"x{n}" for n in range(6)]
    for name in names:
        job.origin.things[name] = Thing([V1], takes_s=0.05)
    most = 0
    run = job.start(job.items(*names), per_host=3, threads=8)

    def ended() -> bool:
        nonlocal most
        most = max(most, sum(job.origin.things[name].active for name in names))
        return run.ended

    until(ended, "the end", 150)
    for name, report in zip(names, job.end(run), strict=True):
        job.assert_whole(report, name=name)
    assert most <= 3
    job.assert_clean(*names)


def test_a_server_that_sends_the_whole_file_for_a_range_is_read_over_one_connection(
    job: PartsJob,
) -> None:
    thing, gate = _gated(job, ranges=False)
    run = job.start()
    until(lambda: len(thing.asked) == 2, "the request that would prove ranges")
    gate.set()
    job.assert_whole(job.end(run)[0])
    assert len(thing.asked) == 2
    assert thing.sent[0] == SIZE
    job.assert_clean()


@pytest.mark.parametrize("refusal", ["503 Busy", "429 Slow Down", "403 Forbidden"])
def test_a_server_that_limits_connections_sends_each_byte_once(job: PartsJob, refusal: str) -> None:
    thing, gate = _gated(job, busy=refusal, limit=2)
    run = job.start()
    until(lambda: thing.refused, "a refusal")
    gate.set()
    job.assert_whole(job.end(run)[0])
    job.assert_clean()
    parts = [it for it, sent in zip(thing.asked[1:], thing.sent[1:], strict=True) if sent]
    assert _once(Thing([], asked=parts))


@pytest.mark.parametrize("if_range", [True, False], ids=["if-range", "if-range-ignored"])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_an_object_that_changes_starts_over_with_the_new_one(
    job: PartsJob, after: int, *, if_range: bool
) -> None:
    # In pieces: one connection that is faster than all others makes several requests too.
    versions = [*[V1] * after, V2]
    job.origin.things["x"] = Thing(versions, takes_s=0.02, if_range=if_range, cut_every=500_000)
    job.assert_whole(job.run(), NEW)
    job.assert_clean()


def test_an_object_of_another_size_starts_over(job: PartsJob) -> None:
    versions = [V1, V1, V1, Version(NEW[:1_500_000], '"v2"')]
    job.origin.things["x"] = Thing(versions, takes_s=0.02, cut_every=500_000)
    job.assert_whole(job.run(), NEW[:1_500_000])
    job.assert_clean()


def test_a_server_with_wrong_ranges_is_read_over_one_connection(job: PartsJob) -> None:
    lies = {"Content-Range": f"bytes 0-99/{SIZE}"}
    thing, gate = _gated(job, lies=lies)
    run = job.start()
    until(lambda: len(thing.asked) >= 2, "the request that would prove ranges")
    gate.set()
    job.assert_whole(job.end(run)[0])
    job.assert_clean()
    assert [it.get("range") is None for it in thing.asked] == [True, False, True]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("piece", [30_000, 100_000])
def test_a_link_that_breaks_brings_each_byte_once(
    job: PartsJob, piece: int, *, reset: bool
) -> None:
    thing = job.origin.things["x"] = Thing([V1], cut_every=piece, reset=reset)
    job.assert_whole(job.run())
    job.assert_clean()
    assert sum(thing.sent) == SIZE


def test_ranges_that_are_shorter_than_requested_are_continued(job: PartsJob) -> None:
    thing, gate = _gated(job, longest=40_000)
    run = job.start()
    until(lambda: len(thing.asked) >= PARTS, f"{PARTS} requests")
    gate.set()
    (report,) = job.end(run)
    job.assert_whole(report)
    job.assert_clean()
    assert report.tries == 1
    assert max(thing.sent[1:]) == 40_000


def test_a_part_that_stalls_is_retried_alone(job: PartsJob) -> None:
    thing = job.origin.things["x"] = Thing(
        [V1], cuts=[None, None, 20_000, 30_000], hang=True, takes_s=0.02
    )
    report = job.run(limits=TransferLimits(10**8, split_from_bytes=2_000_000, stall_s=4.0))
    job.assert_whole(report)
    assert [it.get("range") for it in thing.asked].count(None) == 1


def test_after_the_last_try_the_parts_are_kept_for_the_next_run(job: PartsJob) -> None:
    refusals = ["", "", "", "", *["500 Oops"] * 200]
    thing = job.origin.things["x"] = Thing([V1], cut_every=20_000, refusals=refusals)
    report = job.run(retries=RetryPolicy(tries=2, first_wait_s=0.01, max_wait_s=0.02))
    assert (report.state, report.bytes_done) == (FileState.FAILED, 80_000)
    assert report.error.startswith("responded with 500 Oops; tried ")
    assert report.error.endswith("; 80000 bytes are kept for a retry")
    assert size_of(job.recorded()) == 80_000
    thing.refusals, thing.cut_every, seen = [], None, len(thing.asked)
    job.assert_whole(job.run())
    assert size_of(tuple(requested(thing, seen))) == SIZE - 80_000
    job.assert_clean()


def test_the_parts_are_kept_when_the_server_refuses_all_of_them(job: PartsJob) -> None:
    thing = job.origin.things["x"] = Thing(
        [V1], cut_every=20_000, refusals=["", "", "", "", *["403 Forbidden"] * 20]
    )
    report = job.run()
    assert (report.state, report.bytes_done) == (FileState.FAILED, 80_000)
    assert report.error.startswith("responded with 403 Forbidden; tried ")
    assert report.error.endswith("; 80000 bytes are kept for a retry")
    thing.refusals, thing.cut_every, seen = [], None, len(thing.asked)
    job.assert_whole(job.run())
    assert size_of(tuple(requested(thing, seen))) == SIZE - 80_000
    job.assert_clean()


def test_the_declared_digest_is_that_of_the_whole_file(job: PartsJob) -> None:
    job.origin.things["x"] = Thing([V1])
    wrong = hashlib.sha512(NEW).hexdigest()
    report = job.run(job.items(checksum=f"sha512:{wrong}"))
    assert report.state is FileState.FAILED
    assert report.error == (
        f"its sha512 is {hashlib.sha512(WHOLE).hexdigest()}; expected {wrong} from the request; "
        "tried 2 times"
    )
    right = hashlib.sha512(WHOLE).hexdigest()
    job.assert_whole(job.run(job.items(checksum=f"sha512:{right}")))
    job.assert_clean()


def test_an_object_of_a_multipart_upload_is_fetched_in_parts(job: PartsJob) -> None:
    etag = f'"{"ab" * 16}-17"'
    thing, gate = _gated(job, Version(WHOLE, etag))
    run = job.start(job.items(etag=etag))
    until(lambda: thing.active >= PARTS, f"{PARTS} connections")
    gate.set()
    job.assert_whole(job.end(run)[0])
    assert thing.asked[0]["if-match"] == etag
    assert {it.get("if-range") for it in thing.asked[1:]} == {etag}


def test_a_cancelled_file_leaves_nothing(job: PartsJob) -> None:
    thing, _ = _gated(job)
    run = job.start()
    until(lambda: thing.active >= PARTS, f"{PARTS} connections")
    run.stop("cancelled", FileState.CANCELLED)
    (report,) = job.end(run)
    assert (report.state, report.error) == (FileState.CANCELLED, "cancelled")
    assert list(job.directory.iterdir()) == []


def _resumed(job: PartsJob, thing: Thing, gate: threading.Event) -> None:
    """Run to the end; assert that no byte that is on disk is requested again."""
    before, seen = job.recorded(), len(thing.asked)
    gate.set()
    job.assert_whole(job.run())
    job.assert_clean()
    parts = requested(thing, seen)
    assert size_of(tuple(parts)) == SIZE - size_of(before)
    assert merge([*parts, *before]) == ((0, SIZE),)


def test_a_paused_file_continues_part_by_part(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = job.start()
    _held(job, thing)
    job.stop(run)
    assert not (job.directory / "x").exists()
    _resumed(job, thing, gate)


def test_parts_are_continued_with_one_connection_too(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = job.start()
    _held(job, thing)
    job.stop(run)
    before, seen = size_of(job.recorded()), len(thing.asked)
    gate.set()
    job.assert_whole(job.run(parts=1))
    assert size_of(tuple(requested(thing, seen))) == SIZE - before


def test_a_beginning_of_a_file_is_continued_in_parts(job: PartsJob) -> None:
    thing = job.origin.things["x"] = Thing([V1], cuts=[600_000], refusals=["", "500 Oops"])
    assert job.run(parts=1, retries=RetryPolicy(tries=1)).state is FileState.FAILED
    gate = threading.Event()
    thing.takes_s, thing.gate = 0.01, gate
    run = job.start()
    until(lambda: thing.active >= PARTS, f"{PARTS} connections")
    gate.set()
    job.assert_whole(job.end(run)[0])
    assert thing.asked[2]["range"] == "bytes=600000-"
    assert all(first >= 600_000 for first, _ in requested(thing, 1))


class Killed:
    """A run in a process of its own."""

    def __init__(self, job: PartsJob) -> None:
        self._origin = job.origin
        url = f"{job.origin.url}/thing/x"
        module = "tests.integration.downloads.engine.part_jobs"
        words = [str(job.id), str(job.next_token()), str(job.directory), url]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "started\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate(timeout=100)
        # The last requests that it has sent have arrived when a later one is answered.
        assert urllib3.request("GET", f"{self._origin.url}/file/later").status == 200


def test_a_killed_run_is_continued_without_fetching_a_byte_twice(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = Killed(job)
    _held(job, thing)
    run.kill()
    assert not (job.directory / "x").exists()
    _resumed(job, thing, gate)


def test_a_file_whose_runs_are_killed_at_any_moment_is_whole_in_the_end(job: PartsJob) -> None:
    thing = job.origin.things["x"] = Thing([V1], takes_s=3.0)
    for number in range(1, 4):  # each at another stage: while copying, fetching, or in between
        wanted, run = len(thing.asked) + 2 * number, Killed(job)

        def has_asked(wanted: int = wanted) -> bool:
            return len(thing.asked) >= wanted

        until(has_asked, "requests")
        run.kill()
        recorded = size_of(job.recorded())
    thing.takes_s = 0.01
    seen = len(thing.asked)
    job.assert_whole(job.run())
    assert size_of(tuple(requested(thing, seen))) == SIZE - recorded
    job.assert_clean()


def test_a_validator_that_changed_between_runs_starts_over(job: PartsJob) -> None:
    thing, gate = _gated(job)
    run = job.start()
    _held(job, thing)
    job.stop(run)
    thing.versions = [V2]
    gate.set()
    job.assert_whole(job.run(), NEW)
    job.assert_clean()


def test_a_run_that_lost_its_job_stores_nothing_into_the_file_of_the_next(job: PartsJob) -> None:
    thing, gate = _gated(job)
    late: JobRun = job.start()
    _held(job, thing)
    late_gate, thing.gate = gate, None
    job.assert_whole(job.run())
    late_gate.set()
    late.stop("lost", FileState.QUEUED, keep=True)
    assert late.join(60)
    assert (job.directory / "x").read_bytes() == WHOLE
