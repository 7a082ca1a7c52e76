"""Jobs in the database: creation, start, progress, and the checks of ownership."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.downloads.jobs import listing_rows, ownership, repository, rows, transitions
from cacheapp.downloads.jobs.listing_rows import Batch
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import FileReport, Item, JobProgress, Plan
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import OWNED_JOB, FileState, JobState

pytestmark = pytest.mark.django_db

ME = JobOwner(uuid.uuid4(), 1111)
OTHER = JobOwner(uuid.uuid4(), 1111)  # the same process id, on another host or later
URLS = tuple(f"https://files.example.com/{n}.bin" for n in range(4))


@pytest.fixture(autouse=True)
def root(settings: Settings, tmp_path: Path) -> Path:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": tmp_path}
    return tmp_path


@pytest.fixture
def job() -> DownloadJob:
    return repository.create(DownloadRequest(URLS, threads=9), ME)


@pytest.fixture
def plan(job: DownloadJob, root: Path) -> Plan:
    plan = repository.start(job, ME, root)
    assert plan is not None
    return plan


def _age(job: DownloadJob, seconds: float) -> None:
    job.heartbeat_at = rows.now() - dt.timedelta(seconds=seconds)
    job.save(update_fields=["heartbeat_at"])


def _states(job: DownloadJob) -> list[str]:
    return list(job.files.order_by("position").values_list("state", flat=True))


def _done(item: Item, size: int = 10) -> FileReport:
    return FileReport(item, FileState.SUCCEEDED, bytes_done=size)


def test_a_new_job_is_queued_with_its_files(job: DownloadJob) -> None:
    assert (job.state, job.files_total, job.owner_pid) == ("queued", 4, 1111)
    assert list(job.files.order_by("position").values_list("url", "name", "state")) == [
        (url, f"{n}.bin", "queued") for n, url in enumerate(URLS)
    ]
    assert [found.id for found in repository.waiting(ME)] == [job.id]
    assert repository.waiting(OTHER) == []


def test_only_its_owner_starts_a_job_and_only_once(job: DownloadJob, root: Path) -> None:
    assert repository.start(job, OTHER, root) is None
    plan = repository.start(job, ME, root)
    assert plan is not None
    assert plan.directory == root / str(job.id)
    assert (plan.threads, plan.parts) == (9, 8)  # a file may be large, and use several
    assert [item.name for item in plan.items] == ["0.bin", "1.bin", "2.bin", "3.bin"]
    assert repository.start(job, ME, root) is None


@pytest.mark.parametrize(("parts", "threads"), [(1, 4), (2, 8), (3, 9)])
def test_a_job_has_no_more_threads_than_its_files_can_use(
    job: DownloadJob, root: Path, parts: int, threads: int
) -> None:
    DownloadJob.objects.filter(id=job.id).update(parts=parts)
    plan = repository.start(job, ME, root)
    assert plan is not None
    assert (plan.threads, plan.parts) == (threads, parts)


def test_a_job_that_was_cancelled_first_is_not_started(job: DownloadJob, root: Path) -> None:
    assert transitions.request_cancel(job.id)
    assert repository.start(job, ME, root) is None
    assert repository.record(ME, {}).cancelled == {job.id}


def test_recording_writes_files_numbers_and_a_heartbeat(
    job: DownloadJob, plan: Plan, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_HEARTBEAT_S": 50.0}
    _age(job, 60)
    assert ownership.is_orphan(job)
    reports = [
        _done(plan.items[0]),
        FileReport(plan.items[1], FileState.FAILED, error="responded with 404"),
    ]
    told = repository.record(ME, {job.id: (reports, JobProgress(1, 1, 15))})
    none: frozenset[uuid.UUID] = frozenset()
    assert told == repository.PendingRequests(none, none, none, {job.id: 4})
    job.refresh_from_db()
    assert (job.files_done, job.files_failed, job.bytes_done) == (1, 1, 15)
    assert _states(job) == ["succeeded", "failed", "queued", "queued"]
    assert not ownership.is_orphan(job)


def test_a_late_owner_writes_nothing_and_learns_that_it_lost_the_job(
    job: DownloadJob, plan: Plan
) -> None:
    assert transitions.adopt(DownloadJob.objects.get(id=job.id), OTHER)
    told = repository.record(ME, {job.id: ([_done(plan.items[0])], JobProgress(1, 0, 10))})
    assert told.lost == {job.id}
    assert transitions.finish(job.id, ME, [_done(plan.items[0])], JobProgress(4, 0, 40), "") is None
    assert not transitions.release(
        job.id, ME, plan.token, [_done(plan.items[0])], JobProgress(1, 0, 10)
    )
    job.refresh_from_db()
    assert (job.state, job.files_done, job.owner) == ("queued", 0, OTHER.token)
    assert _states(job) == ["queued"] * 4


def test_another_process_with_the_same_pid_is_not_the_owner(job: DownloadJob, plan: Plan) -> None:
    told = repository.record(OTHER, {job.id: ([_done(plan.items[0])], JobProgress(1, 0, 10))})
    assert told.lost == {job.id}
    assert not DownloadJob.objects.filter(owner=OTHER.token, state__in=OWNED_JOB).exists()
    assert _states(job) == ["queued"] * 4


@pytest.mark.parametrize(
    ("failed", "cancel", "state", "error"),
    [
        pytest.param(0, False, "succeeded", "", id="all-whole"),
        pytest.param(1, False, "failed", "1 of 4 files failed", id="one-failed"),
        pytest.param(0, True, "succeeded", "", id="cancelled-too-late"),
    ],
)
def test_a_job_ends_with_the_numbers_of_its_files(
    job: DownloadJob, plan: Plan, failed: int, state: str, error: str, *, cancel: bool
) -> None:
    if cancel:
        assert transitions.request_cancel(job.id)
    reports = [_done(item) for item in plan.items[failed:]]
    reports += [FileReport(item, FileState.FAILED, error="x") for item in plan.items[:failed]]
    progress = JobProgress(4 - failed, failed, 40 - 10 * failed)
    assert transitions.finish(job.id, ME, reports, progress, "") == state
    job.refresh_from_db()
    assert (job.state, job.error) == (state, error)
    assert (job.files_done, job.files_failed) == (4 - failed, failed)
    assert job.bytes_done == 10 * (4 - failed)
    assert job.finished_at is not None


def test_what_a_cancelled_job_had_not_begun_is_cancelled(job: DownloadJob, plan: Plan) -> None:
    assert transitions.request_cancel(job.id)
    reports = [
        _done(plan.items[0]),
        FileReport(plan.items[1], FileState.CANCELLED, error="cancelled"),
    ]
    assert transitions.finish(job.id, ME, reports, JobProgress(1, 0, 10), "") is JobState.CANCELLED
    assert _states(job) == ["succeeded", "cancelled", "cancelled", "cancelled"]
    assert not transitions.request_cancel(job.id)


def test_a_job_is_an_orphan_once_its_heartbeat_is_too_old(
    job: DownloadJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s)
    _age(job, 0)
    assert not ownership.is_orphan(job)
    _age(job, 4)
    assert not ownership.is_orphan(job)
    _age(job, 5.1)
    assert ownership.is_orphan(job)
    DownloadJob.objects.update(state="failed")
    job.refresh_from_db()
    assert not ownership.is_orphan(job)


def test_a_listed_file_needs_no_folder_that_is_a_file_of_the_job(tmp_path: Path) -> None:
    listed = listing_rows.create_job(
        "s3://files/x", "f" * 64, tmp_path / "to", 9, ME, portable_names=True
    )

    def refused(after: str, *names: str) -> int:
        entries = [SourceEntry(it, f"https://a/{it}", it) for it in names]
        added = listing_rows.add_files(listed.id, ME, listed.token, Batch(entries, after, names[0]))
        assert added is not None
        return added.refused

    assert refused("", "a", "b/c") == 0
    many = [f"x{n}/y" for n in range(600)]  # more than one query asks for
    assert refused("a", "A/1", "b/d", "b/c/e/f", *many) == 2
    errors = listed.files.filter(state="failed").values_list("error", flat=True)
    assert set(errors) == {"one of its folders is another file of the job"}
