"""A takeover stops an earlier run of the job, at whatever point that was suspended."""

import contextlib
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.downloads.engine.run import LOST, JobRun
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.plan import FileReport, Item, Plan, RetryPolicy
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.journal import Journal, PublishedFile
from cacheapp.downloads.storage.run_directory import (
    RunDirectory,
    removable_directories,
    remove_directory,
    run_directories,
)
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin

JOB = uuid.uuid4()
LIMITS = TransferLimits(max_bytes=2**30, read_s=3600, stall_s=0.01)  # used by `enforce_limits` only
OLD, NEW = b"1" * 1_000_000, b"2" * 1_000_000
CUT = 800_000


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


def _run(
    origin: Origin, directory: Path, token: int, names: list[str], *, ours: bool = True
) -> JobRun:
    items = tuple(
        Item(n, n, f"{origin.url}/{path}", path.rpartition("/")[2]) for n, path in enumerate(names)
    )
    plan = Plan(
        *(JOB, directory, 4, frozenset([origin.url]), items),
        token=token,
        resumable=True,
        own=True,
        retries=RetryPolicy(tries=1000, first_wait_s=0.01),
    )
    return JobRun(plan, LIMITS, lambda: None, ThreadPool(4), is_still_owner=lambda: ours)


def _ended(run: JobRun) -> dict[str, FileReport]:
    until(lambda: run.ended, f"{run} to end", 100)
    return {report.item.name: report for report in run.changes()[0]}


def _stalled(run: JobRun) -> dict[str, FileReport]:
    """Abort attempts that receive nothing until the run has ended."""

    def ended() -> bool:
        run.enforce_limits()
        return run.ended

    until(ended, f"{run} to end", 100)
    return _ended(run)


def _files(directory: Path) -> dict[str, bytes]:
    """Return the files with a final name."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_an_earlier_run_publishes_nothing_after_a_takeover(origin: Origin, tmp_path: Path) -> None:
    """The file it is fetching: the last byte of each arrives after the takeover."""
    names = [f"thing/{n}" for n in range(4)]
    for n in range(4):
        origin.things[str(n)] = Thing([Version(OLD, '"old"')], cuts=[CUT], hang=True)
    early = _run(origin, tmp_path, 1, names)
    early.start()
    until(lambda: early.changes()[1].bytes_done > 4 * 400_000, "bytes to come")
    RunDirectory(tmp_path, JOB.hex[:12], 2).take_over()
    # The suspended process continues: its connections fail, and it tries to fetch the rest.
    reports = _stalled(early)
    assert early.stopped == LOST
    assert FileState.SUCCEEDED not in {report.state for report in reports.values()}
    assert _files(tmp_path) == {}
    early.clean(keep=True)


def test_a_later_run_resumes_the_bytes_of_the_earlier_in_its_own_files(
    origin: Origin, tmp_path: Path
) -> None:
    origin.things["a"] = Thing([Version(OLD, '"old"')], cuts=[CUT], hang=True)
    early = _run(origin, tmp_path, 1, ["thing/a"])
    early.start()
    until(lambda: early.changes()[1].bytes_done >= CUT - 2**18, "all but the last read to come")
    late = _run(origin, tmp_path, 2, ["thing/a"])
    late.start()
    assert _ended(late)["a"].state is FileState.SUCCEEDED
    asked = origin.things["a"].asked[1]["range"]
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= CUT - 2**18
    late.clean()
    early.stop("the test is over")
    _ended(early)
    early.clean()
    assert _files(tmp_path) == {"a": OLD}
    assert run_directories(tmp_path) == []


def test_a_run_that_resumes_after_its_job_has_ended_leaves_nothing(
    origin: Origin, tmp_path: Path
) -> None:
    early = _run(origin, tmp_path, 1, ["hang-in-body/a?bytes=500000"])
    early.start()
    until(lambda: list(tmp_path.rglob("*.part")), "a partial file")
    taker = RunDirectory(tmp_path, JOB.hex[:12], 2)
    taker.take_over()
    taker.remove_all()
    early.stop("woken", keep=True)
    _ended(early)
    early.clean()
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_token_is_old_when_it_starts_begins_nothing(
    origin: Origin, tmp_path: Path
) -> None:
    taker = RunDirectory(tmp_path, JOB.hex[:12], 2)
    taker.take_over()
    late = _run(origin, tmp_path, 1, ["file/a"], ours=False)
    late.start()
    assert (_ended(late), late.stopped, origin.asked) == ({}, LOST, [])
    late.clean(keep=True)
    assert run_directories(tmp_path) == [(2, taker.path)]


def test_a_file_published_during_the_takeover_counts_as_complete(
    origin: Origin, tmp_path: Path
) -> None:
    """A link in the kernel while its directory is renamed: in the journal, then on disk."""
    origin.things["a"] = Thing([Version(NEW, '"new"')], cuts=[CUT], hang=True)
    taker = _run(origin, tmp_path, 2, ["thing/a"])
    taker.start()
    until(lambda: taker.changes()[1].bytes_done > 400_000, "bytes to come")
    (tmp_path / "a").write_bytes(OLD)
    earlier = Journal(RunDirectory(tmp_path, JOB.hex[:12], 2).path, 1)
    earlier.open()
    earlier.append(0, PublishedFile(len(OLD), "ab" * 32, (tmp_path / "a").stat().st_ino))
    earlier.close()
    report = _stalled(taker)["a"]
    assert (report.state, report.sha256, report.bytes_done) == (
        *(FileState.SUCCEEDED, "ab" * 32, len(OLD)),
    )
    taker.clean()
    assert _files(tmp_path) == {"a": OLD}


def test_a_file_without_a_journal_entry_is_fetched_again(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0" * 10)
    run = _run(origin, tmp_path, 2, ["file/a"])
    run.start()
    assert _ended(run)["a"].state is FileState.SUCCEEDED
    run.clean()
    assert len(_files(tmp_path)["a"]) == 1000


def test_a_file_whose_name_is_a_folder_of_another_fails_and_takes_nothing_away(
    origin: Origin, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(OLD)  # complete and recorded: no longer in the plan
    run = _run(origin, tmp_path, 2, ["file/a"])
    run.start()
    report = _ended(run)["a"]
    assert (report.state, report.error) == (
        *(FileState.FAILED, "a already exists; it was not replaced"),
    )
    run.clean()
    assert (tmp_path / "a" / "b").read_bytes() == OLD


def test_a_file_below_one_that_is_whole_fails_alone(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OLD)
    items = (
        Item(0, 0, f"{origin.url}/file/0", "a/0"),
        Item(1, 1, f"{origin.url}/file/1", "1"),
    )
    plan = Plan(
        *(JOB, tmp_path, 1, frozenset([origin.url]), items), token=2, resumable=True, own=True
    )
    run = JobRun(plan, LIMITS, lambda: None, ThreadPool(1))
    run.start()
    reports = _ended(run)
    assert reports["a/0"].error == "a folder of its path already exists as a file"
    assert reports["1"].state is FileState.SUCCEEDED
    run.clean()
    assert (tmp_path / "a").read_bytes() == OLD


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_the_largest_token_owns_the_directory_whatever_the_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    by_token = {token: RunDirectory(tmp_path, "0123456789ab", token) for token in order}
    for token in order:
        by_token[token].take_over()
        (by_token[token].path / f"of-{token}").touch()
    assert by_token[3].exists()
    # A smaller token only creates a directory late: its run checks the database next, and
    # withdraws.
    largest_so_far = [max(order[: n + 1]) for n in range(3)]
    late = {token for token, most in zip(order, largest_so_far, strict=True) if token < most}
    standing = {token for token, _ in run_directories(tmp_path)}
    assert standing <= late | {3}


def _left(run_directory: RunDirectory, *names: str) -> None:
    run_directory.path.mkdir(parents=True)
    for name in names:
        (run_directory.path / name).touch()


def test_everything_that_earlier_runs_left_is_taken_over(tmp_path: Path) -> None:
    for token in (2, 9, 10):
        _left(RunDirectory(tmp_path, "0123456789ab", token), f"of-{token}")
    run_directory = RunDirectory(tmp_path, "0123456789ab", 11)
    run_directory.take_over()
    assert sorted(path.name for path in run_directory.path.iterdir()) == ["of-10", "of-2", "of-9"]
    assert run_directories(tmp_path) == [(11, run_directory.path)]


def test_an_interrupted_takeover_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in (2, 3):
        _left(RunDirectory(tmp_path, "0123456789ab", token), f"of-{token}")
    with monkeypatch.context() as killed:
        killed.setattr(RunDirectory, "_unpack", lambda *_: None)
        RunDirectory(tmp_path, "0123456789ab", 4).take_over()
    run_directory = RunDirectory(tmp_path, "0123456789ab", 5)
    run_directory.take_over()
    assert sorted(path.name for path in run_directory.path.iterdir()) == ["of-2", "of-3"]


def test_a_directory_that_is_renamed_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scan of a large directory sees neither name of one that another run is renaming.
    earlier, other, ours = (RunDirectory(tmp_path, "0123456789ab", token) for token in (1, 2, 3))
    _left(earlier, "bytes")
    look = RunDirectory._smaller  # noqa: SLF001

    def blinking(run_directory: RunDirectory) -> list[Path]:
        if run_directory is ours and earlier.path.exists():
            other.take_over()
            return []
        return look(run_directory)

    monkeypatch.setattr(RunDirectory, "_smaller", blinking)
    ours.take_over()
    assert [path.name for path in ours.path.iterdir()] == ["bytes"]
    assert run_directories(tmp_path) == [(3, ours.path)]


def test_other_jobs_and_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in (".0123456789ac.1", ".0123456789ab.x", "0123456789ab.1", ".config"):
        (tmp_path / name).mkdir()
    (tmp_path / ".0123456789ab.1").write_text("a file")
    run_directory = RunDirectory(tmp_path, "0123456789ab", 5)
    run_directory.take_over()
    run_directory.remove_all()
    assert len(list(tmp_path.iterdir())) == 5
    for path in removable_directories(tmp_path):
        remove_directory(path)
    assert sorted(os.listdir(tmp_path)) == [  # noqa: PTH208 (names)
        *(".0123456789ab.1", ".0123456789ab.x", ".config", "0123456789ab.1"),
    ]


@pytest.mark.parametrize(
    "remove", [RunDirectory.remove_all, lambda run_directory: remove_directory(run_directory.path)]
)
def test_removing_a_directory_removes_nothing_of_its_new_owner(
    remove: Callable[[RunDirectory], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is resumed while its former owner, or the cleanup, is removing the directory."""
    early, taker = (RunDirectory(tmp_path, JOB.hex[:12], token) for token in (1, 2))
    early.take_over()
    (early.path / "early").touch()
    removal = shutil.rmtree

    def take_over(path: Path, *, ignore_errors: bool) -> None:
        descriptor = os.open(path, os.O_RDONLY)  # as if the removal had begun
        try:
            taker.take_over()
            (taker.path / "taken").touch()
            removal(f"/proc/self/fd/{descriptor}/.", ignore_errors=ignore_errors)
            removal(path, ignore_errors=ignore_errors)
        finally:
            os.close(descriptor)

    monkeypatch.setattr(shutil, "rmtree", take_over)
    remove(early)
    assert [path.name for path in taker.path.iterdir()] == ["taken"]
    assert run_directories(tmp_path) == [(2, taker.path)]


def test_an_interrupted_removal_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, taker = (RunDirectory(tmp_path, JOB.hex[:12], token) for token in (1, 2))
    early.take_over()
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_args, **_how: None)
        early.remove_all()
    assert run_directories(tmp_path) == []  # no run resumes it
    assert len(list(tmp_path.iterdir())) == 1
    taker.take_over()
    taker.remove_all()
    assert list(tmp_path.iterdir()) == []


def test_a_takeover_succeeds_though_the_parent_directory_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_directory = RunDirectory(tmp_path / "job", JOB.hex[:12], 2)
    look = RunDirectory._smaller  # noqa: SLF001 (between it and what follows, it happens)

    def pruned(self: RunDirectory) -> list[Path]:
        found = look(self)
        with contextlib.suppress(OSError):  # our own directory is in it
            self.directory.rmdir()
        return found

    monkeypatch.setattr(RunDirectory, "_smaller", pruned)
    run_directory.take_over()
    assert run_directory.exists()


def test_a_late_run_unpublishes_nothing(tmp_path: Path) -> None:
    early, taker = (RunDirectory(tmp_path, JOB.hex[:12], token) for token in (1, 2))
    early.take_over()
    taker.take_over()
    (tmp_path / "a").write_bytes(b"fetched by the taker")
    early.unpublish(tmp_path / "a", 0)
    assert (tmp_path / "a").read_bytes() == b"fetched by the taker"
    taker.unpublish(tmp_path / "a", 0)
    assert not (tmp_path / "a").exists()
