"""Files over links that break, stall or are slow: every byte that arrived counts."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.plan import FileReport, Item, Plan, RetryPolicy
from cacheapp.downloads.states import FileState
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body

SIZE = 2_000_000
WHOLE = body({"bytes": str(SIZE)})
V1 = Version(WHOLE, '"v1"')
QUICK = RetryPolicy(first_wait_s=0.01)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


class Job:
    """A job whose runs resume from its directory."""

    def __init__(self, origin: Origin, directory: Path) -> None:
        self.directory = directory
        self._origin = origin
        self._id = uuid.uuid4()
        self._token = 0

    def run(
        self,
        *things: str,
        limits: TransferLimits | None = None,
        retries: RetryPolicy = QUICK,
        enforced: Callable[[JobRun], bool] = lambda _run: True,
    ) -> list[FileReport]:
        """Run to the end, as its owner does, and return the reports of the files in order.

        `enforced`: whether to enforce the limits now.
        """
        self._token += 1
        items = [
            Item(n, n, f"{self._origin.url}/thing/{it}", it) for n, it in enumerate(things or ["x"])
        ]
        plan = Plan(
            *(self._id, self.directory, len(items), None, tuple(items)),
            networks=read_networks(["127.0.0.0/8"]),
            token=self._token,
            resumable=True,
            retries=retries,
        )
        pool: ThreadPool[QueuedFile] = ThreadPool(len(items))
        run = JobRun(plan, limits or TransferLimits(10**8), lambda: None, pool)
        run.start()

        def ended() -> bool:
            if enforced(run):
                run.enforce_limits()
            return run.ended

        until(ended, f"{run} to end", 100)
        reports = sorted(run.changes()[0], key=lambda it: it.item.position)
        run.clean(keep=run.has_partial_files())
        return reports


@pytest.fixture
def job(origin: Origin, tmp_path: Path) -> Job:
    return Job(origin, tmp_path / "job")


def _starts(thing: Thing) -> list[int]:
    return [int(it.get("range", "bytes=0-")[6:-1]) for it in thing.asked]


@pytest.mark.parametrize("piece", [150_000, 300_000])  # below and above the size of a read
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_link_that_breaks_more_often_than_there_are_tries_brings_the_whole_file(
    origin: Origin, job: Job, piece: int, *, reset: bool
) -> None:
    thing = origin.things["x"] = Thing([V1], cut_every=piece, reset=reset)
    (report,) = job.run()
    assert (report.state, report.error) == (FileState.SUCCEEDED, "")
    assert (job.directory / "x").read_bytes() == WHOLE
    assert _starts(thing) == list(range(0, SIZE, piece))  # each continues where the last one broke
    assert sum(thing.sent) == SIZE
    assert report.tries == len(thing.asked)


@pytest.mark.soak  # a minute of waiting
def test_a_stalled_link_keeps_all_bytes_that_arrived(origin: Origin, job: Job) -> None:
    thing = origin.things["x"] = Thing([V1], cuts=[100_001, 3000, 70_000], hang=True)

    def hangs(run: JobRun) -> bool:
        """Return True if all that was sent has arrived: only then it is no pause of this machine."""
        sent = sum(thing.sent)
        return thing.hanging > run.retries_made and run.changes()[1].bytes_done == sent

    (report,) = job.run(limits=TransferLimits(10**8, stall_s=0.3), enforced=hangs)
    assert report.state is FileState.SUCCEEDED
    assert _starts(thing) == [0, 100_001, 103_001, 173_001]
    assert sum(thing.sent) == SIZE


def test_silence_keeps_all_bytes_that_arrived(origin: Origin, job: Job) -> None:
    thing = origin.things["x"] = Thing([V1], cuts=[100_001, 3000], hang=True)
    (report,) = job.run(limits=TransferLimits(10**8, read_s=2.5))
    assert report.state is FileState.SUCCEEDED
    assert _starts(thing) == [0, 100_001, 103_001]
    assert sum(thing.sent) == SIZE


def test_slow_links_that_bring_enough_are_not_stalled(origin: Origin, job: Job) -> None:
    names = [f"slow{n}" for n in range(8)]
    for name in names:  # 8 KiB each 0.2 s: a read takes 6 s, which is more than the limit
        version = Version(WHOLE[:300_000], '"v"')
        origin.things[name] = Thing([version], takes_s=7.2, piece_bytes=8 * 1024)
    reports = job.run(*names, limits=TransferLimits(10**8, stall_s=5.0))
    assert {report.state for report in reports} == {FileState.SUCCEEDED}
    sent = sum(sum(origin.things[name].sent) for name in names)
    assert sent <= 1.02 * 300_000 * len(names)
    assert [len(origin.things[name].asked) for name in names] == [1] * 8


def test_a_few_bytes_per_try_are_no_progress_and_stay_for_the_next_run(
    origin: Origin, job: Job
) -> None:
    thing = origin.things["x"] = Thing([V1], cut_every=1000)
    (report,) = job.run(retries=RetryPolicy(tries=3, first_wait_s=0.01))
    assert (report.state, report.bytes_done) == (FileState.FAILED, 3000)
    assert report.error == (
        f"ended after 3000 of {SIZE} bytes; tried 3 times; 3000 bytes are kept for a retry"
    )
    assert not (job.directory / "x").exists()
    thing.cut_every = None
    assert job.run()[0].state is FileState.SUCCEEDED
    assert _starts(thing) == [0, 1000, 2000, 3000]
    assert (job.directory / "x").read_bytes() == WHOLE
    assert [path.name for path in job.directory.iterdir()] == ["x"]


def test_tries_count_again_from_the_last_progress(origin: Origin, job: Job) -> None:
    thing = origin.things["x"] = Thing([V1], cuts=[10, 10, 50_000, 10, 10, 10])
    (report,) = job.run(retries=RetryPolicy(tries=3, first_wait_s=0.01))
    assert report.state is FileState.FAILED
    assert _starts(thing) == [0, 10, 20, 50_020, 50_030, 50_040]


def test_bytes_that_every_try_fetches_again_are_no_progress(origin: Origin, job: Job) -> None:
    thing = origin.things["x"] = Thing([Version(WHOLE)], cut_every=500_000)  # no validator
    (report,) = job.run(retries=RetryPolicy(tries=3, first_wait_s=0.01))
    assert report.error == f"ended after 500000 of {SIZE} bytes; tried 3 times"
    assert _starts(thing) == [0, 0, 0]
    assert list(job.directory.iterdir()) == []


def test_a_job_that_fails_without_partial_files_leaves_nothing(origin: Origin, job: Job) -> None:
    origin.things["x"] = Thing([], refusals=["404 Not Found"])
    assert job.run()[0].state is FileState.FAILED
    assert list(job.directory.iterdir()) == []


@pytest.mark.parametrize("refusal", ["403 Forbidden", "404 Not Found"])
def test_the_bytes_of_a_file_stay_when_its_server_refuses_to_continue(
    origin: Origin, job: Job, refusal: str
) -> None:
    thing = origin.things["x"] = Thing([V1], cuts=[100_000], refusals=["", refusal, refusal])
    for tried in ("; tried 2 times", ""):
        (report,) = job.run()
        assert (report.state, report.bytes_done) == (FileState.FAILED, 100_000)
        kept = f"{tried}; 100000 bytes are kept for a retry"
        assert report.error == f"responded with {refusal}{kept}"
    assert job.run()[0].state is FileState.SUCCEEDED
    assert _starts(thing) == [0, 100_000, 100_000, 100_000]
    assert (job.directory / "x").read_bytes() == WHOLE
    assert [path.name for path in job.directory.iterdir()] == ["x"]
