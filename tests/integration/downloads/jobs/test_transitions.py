"""Pausing, resuming and retrying jobs in the database."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from django.db import connection
from django.test import TestCase
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import listing_rows, ownership, repository, rows, transitions
from cacheapp.downloads.jobs.listing_rows import Batch
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import FileReport, JobProgress, Plan
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.storage.run_directory import RunDirectory
from tests.integration.downloads.parts import named

pytestmark = pytest.mark.django_db

ME = JobOwner(uuid.uuid4(), 1111)
OTHER = JobOwner(uuid.uuid4(), 2222)
URLS = tuple(f"https://files.example.com/{n}.bin" for n in range(4))


@pytest.fixture(autouse=True)
def root(settings: Settings, tmp_path: Path) -> Path:
    more = {"DOWNLOAD_ROOT": tmp_path, "DOWNLOAD_HEARTBEAT_S": 50.0}
    settings.CACHEAPP = {**settings.CACHEAPP, **more}
    return tmp_path


@pytest.fixture
def job() -> DownloadJob:
    return repository.create(DownloadRequest(URLS, threads=9), ME)


@pytest.fixture
def plan(job: DownloadJob, root: Path) -> Plan:
    plan = repository.start(job, ME, root)
    assert plan is not None
    return plan


def _states(job: DownloadJob) -> list[str]:
    return list(job.files.order_by("position").values_list("state", flat=True))


def _paused(job: DownloadJob, plan: Plan) -> DownloadJob:
    """Pause the job with one file complete, one in transfer, one failed, one not started."""
    states = (FileState.SUCCEEDED, FileState.RUNNING, FileState.FAILED)
    reports = [
        FileReport(item, state, bytes_done=5, error="x" if state is FileState.FAILED else "")
        for item, state in zip(plan.items, states, strict=False)
    ]
    assert transitions.pause(job.id, ME, reports, JobProgress(1, 1, 10), "")
    return DownloadJob.objects.get(id=job.id)


def test_the_owner_receives_a_pause_request(job: DownloadJob, plan: Plan) -> None:
    assert transitions.request_pause(job.id)
    assert repository.record(ME, {}).paused == {job.id}


def test_a_paused_job_needs_no_live_owner_and_has_no_running_file(
    job: DownloadJob, plan: Plan
) -> None:
    found = _paused(job, plan)
    assert (found.state, found.pause_requested, found.files_done) == ("paused", False, 1)
    assert _states(job) == ["succeeded", "queued", "failed", "queued"]
    DownloadJob.objects.update(heartbeat_at=rows.now() - dt.timedelta(days=9))
    found.refresh_from_db()
    assert not ownership.is_orphan(found)
    assert not transitions.adopt(found, OTHER)
    assert ownership.unfinished_jobs() == []
    assert not transitions.request_pause(job.id)


def test_a_late_owner_writes_nothing_to_a_paused_job(job: DownloadJob, plan: Plan) -> None:
    _paused(job, plan)
    late = [FileReport(plan.items[1], FileState.SUCCEEDED, bytes_done=5)]
    assert repository.record(ME, {job.id: (late, JobProgress(2, 0, 10))}).lost == {job.id}
    assert transitions.finish(job.id, ME, late, JobProgress(4, 0, 20), "") is None
    assert not transitions.pause(job.id, ME, late, JobProgress(), "")
    assert _states(job) == ["succeeded", "queued", "failed", "queued"]


def test_exactly_one_takes_a_paused_job_and_only_what_is_missing_is_done(
    job: DownloadJob, plan: Plan, root: Path
) -> None:
    _paused(job, plan)
    seen = [DownloadJob.objects.get(id=job.id) for _ in range(3)]
    assert [transitions.requeue(found, OTHER) for found in seen] == [True, False, False]
    again = repository.start(seen[0], OTHER, root)
    assert again is not None
    assert [item.position for item in again.items] == [1, 2, 3]
    assert again.token > plan.token
    assert again.done == JobProgress(files_done=1, bytes_done=5)


def test_a_paused_job_is_cancelled_at_once(job: DownloadJob, plan: Plan) -> None:
    _paused(job, plan)
    assert transitions.cancel(job.id)
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert _states(job) == ["succeeded", "cancelled", "failed", "cancelled"]


def test_a_cancellation_while_a_run_stops_to_pause_is_kept(job: DownloadJob, plan: Plan) -> None:
    assert transitions.request_pause(job.id)
    assert transitions.request_cancel(job.id)
    done = [FileReport(plan.items[0], FileState.SUCCEEDED, bytes_done=5)]
    found = transitions.pause(job.id, ME, done, JobProgress(1, 0, 5), "", plan.token)
    assert found is JobState.CANCELLED
    job.refresh_from_db()
    assert (job.state, job.files_done) == ("cancelled", 1)
    assert _states(job) == ["succeeded", "cancelled", "cancelled", "cancelled"]


def test_a_queued_job_with_a_cancel_request_is_not_paused(job: DownloadJob) -> None:
    """It is ended where earlier runs can be shut out: at its owner's next look."""
    assert transitions.request_pause(job.id)
    assert transitions.request_cancel(job.id)
    assert transitions.pause(job.id, ME, [], JobProgress(), "", job.token) is None
    job.refresh_from_db()
    assert (job.state, job.cancel_requested) == ("queued", True)


def test_a_paused_job_that_is_cancelled_keeps_what_was_named_before_its_owner_was_killed(
    job: DownloadJob, plan: Plan, root: Path
) -> None:
    job.refresh_from_db()
    named(job, "0.bin", b"whole")
    assert transitions.request_pause(job.id)
    assert transitions.adopt(DownloadJob.objects.get(id=job.id), OTHER)
    assert transitions.pause(job.id, OTHER, [], JobProgress(), "")
    with TestCase.captureOnCommitCallbacks(execute=True):
        assert transitions.cancel(job.id)
    job.refresh_from_db()
    assert (job.state, job.files_done) == ("cancelled", 1)
    assert _states(job) == ["succeeded", "cancelled", "cancelled", "cancelled"]
    assert [path.name for path in (root / str(job.id)).iterdir()] == ["0.bin"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("meanwhile", "state"), [("take", "queued"), ("cancel", "cancelled"), ("", "cancelled")]
)
def test_no_transaction_waits_for_the_disk_as_a_paused_job_is_cancelled(
    job: DownloadJob,
    plan: Plan,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: str,
    state: str,
) -> None:
    """Other processes may act in between; the cancellation holds all the same."""
    _paused(job, plan)
    named(job, "1.bin", b"whole")
    take_over, others = RunDirectory.take_over, [meanwhile]

    def slow(run_directory: RunDirectory) -> None:
        assert not connection.in_atomic_block
        take_over(run_directory)
        what = others.pop() if others else ""
        if what == "take":
            assert transitions.requeue(DownloadJob.objects.get(id=job.id), OTHER)
        elif what == "cancel":
            assert transitions.cancel(job.id)

    monkeypatch.setattr(RunDirectory, "take_over", slow)
    assert transitions.cancel(job.id) == (meanwhile != "cancel")  # once
    job.refresh_from_db()
    assert (job.state, job.cancel_requested) == (state, state == "queued")
    if state == "cancelled":
        assert [path.name for path in (root / str(job.id)).iterdir()] == ["1.bin"]
        assert _states(job) == ["succeeded", "succeeded", "failed", "cancelled"]


def test_a_late_run_neither_pauses_nor_ends_a_job_that_is_its_own_process_s_again(
    job: DownloadJob, plan: Plan
) -> None:
    assert transitions.adopt(DownloadJob.objects.get(id=job.id), OTHER)
    assert transitions.pause(job.id, OTHER, [], JobProgress(), "")
    assert transitions.requeue(DownloadJob.objects.get(id=job.id), ME)
    late = [FileReport(plan.items[0], FileState.FAILED, error="late")]
    assert transitions.pause(job.id, ME, late, JobProgress(), "", plan.token) is None
    assert transitions.finish(job.id, ME, late, JobProgress(), "late", plan.token) is None
    job.refresh_from_db()
    assert (job.state, job.error) == ("queued", "")
    assert _states(job) == ["queued"] * 4


def test_a_late_run_lists_no_file(listed: DownloadJob) -> None:
    plan = repository.start(listed, ME, None, stream=True)
    assert plan is not None
    assert transitions.pause(listed.id, ME, [], JobProgress(), "", plan.token)
    assert transitions.requeue(DownloadJob.objects.get(id=listed.id), ME)
    assert listing_rows.add_files(listed.id, ME, plan.token, Batch([_entry("a")], "", "a")) is None
    assert not listing_rows.mark_listed_all(listed.id, ME, plan.token)
    listed.refresh_from_db()
    assert (listed.files_total, listed.listed_to, listed.listed_all) == (0, "", False)


def test_a_listing_that_a_cancellation_cut_short_is_no_success(listed: DownloadJob) -> None:
    plan = repository.start(listed, ME, None, stream=True)
    assert plan is not None
    added = listing_rows.add_files(listed.id, ME, plan.token, Batch([_entry("a")], "", "a"))
    assert added is not None
    assert transitions.request_cancel(listed.id)
    done = [FileReport(added.items[0], FileState.SUCCEEDED, bytes_done=1)]
    assert transitions.finish(listed.id, ME, done, JobProgress(1, 0, 1), "") is JobState.CANCELLED


def test_the_failed_files_of_a_job_are_tried_again(
    job: DownloadJob, plan: Plan, root: Path
) -> None:
    done = [FileReport(item, FileState.SUCCEEDED, bytes_done=5) for item in plan.items[:3]]
    failed = [FileReport(plan.items[3], FileState.FAILED, error="responded with 404")]
    transitions.finish(job.id, ME, done + failed, JobProgress(3, 1, 15), "")
    job.refresh_from_db()
    assert transitions.requeue(job, OTHER)
    assert (job.state, job.error, job.finished_at, job.files_failed) == ("queued", "", None, 0)
    again = repository.start(job, OTHER, root)
    assert again is not None
    assert [item.position for item in again.items] == [3]


def test_a_succeeded_or_live_job_cannot_be_queued_again(job: DownloadJob, plan: Plan) -> None:
    job.refresh_from_db()
    assert not transitions.requeue(job, OTHER)
    done = [FileReport(item, FileState.SUCCEEDED, bytes_done=5) for item in plan.items]
    assert transitions.finish(job.id, ME, done, JobProgress(4, 0, 20), "") is JobState.SUCCEEDED
    job.refresh_from_db()
    assert not transitions.requeue(job, OTHER)


def test_an_orphan_can_be_taken(job: DownloadJob, plan: Plan) -> None:
    DownloadJob.objects.update(heartbeat_at=rows.now() - dt.timedelta(seconds=60))
    job.refresh_from_db()
    assert transitions.requeue(job, OTHER)
    assert repository.record(ME, {job.id: ([], JobProgress())}).lost == {job.id}


@pytest.fixture
def listed(tmp_path: Path) -> DownloadJob:
    return listing_rows.create_job("s3://files/x", "f" * 64, tmp_path / "to", 9, ME)


def _entry(name: str, error: str = "") -> SourceEntry:
    return SourceEntry(name, f"https://a/{name}", "" if error else name, error=error)


def test_files_join_a_job_with_names_that_differ_and_a_mark(listed: DownloadJob) -> None:
    DownloadJob.objects.update(portable_names=True)
    batch = Batch([_entry("a"), _entry("A"), _entry("", "hostile")], after="", mark="A")
    first = listing_rows.add_files(listed.id, ME, 0, batch)
    batch = Batch([_entry("a"), _entry("a-2"), _entry("b")], after="A", mark="b")
    second = listing_rows.add_files(listed.id, ME, 0, batch)
    assert first is not None
    assert second is not None
    assert (first.refused, [item.name for item in first.items]) == (1, ["a", "A-2"])
    assert [item.name for item in second.items] == ["a-3", "a-2-2", "b"]
    assert [item.position for item in second.items] == [3, 4, 5]
    listed.refresh_from_db()
    assert (listed.files_total, listed.listed_to, listed.listed_all) == (6, "b", False)
    assert listed.files_renamed == 3
    renamed = listed.files.exclude(original_name="").order_by("position")
    assert list(renamed.values_list("original_name", "name")) == [
        *(("A", "A-2"), ("a", "a-3"), ("a-2", "a-2-2")),
    ]
    assert DownloadFile.objects.get(state="failed").error == "hostile"
    assert listing_rows.add_files(listed.id, ME, 0, batch) == second  # again: it was there
    batch = Batch([_entry("c")], after="b", mark="c")
    assert listing_rows.add_files(listed.id, OTHER, 0, batch) is None
    assert DownloadFile.objects.count() == 6


def test_an_earlier_run_of_the_same_owner_adds_no_files(listed: DownloadJob) -> None:
    repository.start(listed, ME, None, stream=True)
    early = listed.token
    assert transitions.adopt(listed, OTHER)
    listed.refresh_from_db()
    assert transitions.adopt(listed, ME)
    batch = Batch([_entry("a")], after="", mark="a")
    assert listing_rows.add_files(listed.id, ME, early, batch) is None
    assert not listing_rows.mark_listed_all(listed.id, ME, early)
    assert DownloadFile.objects.count() == 0


def test_a_listing_that_broke_off_is_no_success(listed: DownloadJob) -> None:
    repository.start(listed, ME, None, stream=True)
    added = listing_rows.add_files(listed.id, ME, listed.token, Batch([_entry("a")], "", "a"))
    assert added is not None
    done = [FileReport(added.items[0], FileState.SUCCEEDED, bytes_done=1)]
    state = transitions.finish(
        listed.id, ME, done, JobProgress(1, 0, 1), "listing: Connection refused"
    )
    assert state is JobState.FAILED
    listed.refresh_from_db()
    assert listed.error == "listing: Connection refused"


def test_a_refused_key_stays_refused_when_the_rest_is_tried_again(listed: DownloadJob) -> None:
    repository.start(listed, ME, None, stream=True)
    batch = Batch([_entry("a"), _entry("", "hostile")], after="", mark="z")
    added = listing_rows.add_files(listed.id, ME, listed.token, batch)
    assert added is not None
    listing_rows.mark_listed_all(listed.id, ME, listed.token)
    failed = [FileReport(added.items[0], FileState.FAILED, error="responded with 404")]
    assert transitions.finish(listed.id, ME, failed, JobProgress(0, 2, 0), "") is JobState.FAILED
    listed.refresh_from_db()
    assert transitions.requeue(listed, OTHER)
    plan = repository.start(listed, OTHER, None, stream=True)
    assert plan is not None
    assert plan.done == JobProgress(files_failed=1)
    assert [item.name for item in repository.unfinished_items(listed.id)] == ["a"]
