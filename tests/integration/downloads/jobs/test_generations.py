"""Generations: a client that reads only newer changes misses none, from any process."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import listing_rows, repository, transitions
from cacheapp.downloads.jobs.listing_rows import Batch
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import FileReport, JobProgress, Plan
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import FileState

pytestmark = pytest.mark.django_db

ME = JobOwner(uuid.uuid4(), 1111)
URLS = tuple(f"https://files.example.com/{n}.bin" for n in range(4))
BATCH_FILES = Batch([SourceEntry("k", "https://a/k", "k")], after="", mark="k")


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


def _generation(job: DownloadJob) -> int:
    job.refresh_from_db()
    return job.generation


def _changed(job: DownloadJob, since: int) -> list[int]:
    """Return the positions of the files that have changed since."""
    found = job.files.filter(generation__gt=since).order_by("position")
    return list(found.values_list("position", flat=True))


def test_a_new_job_and_all_its_files_are_newer_than_nothing(job: DownloadJob) -> None:
    assert _generation(job) == 1
    assert _changed(job, 0) == [0, 1, 2, 3]
    assert _changed(job, 1) == []


def test_recorded_progress_tells_which_files_have_changed(job: DownloadJob, plan: Plan) -> None:
    before = _generation(job)
    reports = [FileReport(plan.items[2], FileState.RUNNING)]
    repository.record(ME, {job.id: (reports, JobProgress(bytes_done=7))})
    assert _generation(job) == before + 1
    assert _changed(job, before) == [2]


def test_a_heartbeat_alone_changes_nothing(job: DownloadJob, plan: Plan) -> None:
    repository.record(ME, {job.id: ([], JobProgress(bytes_done=7, bytes_total=9))})
    before = _generation(job)
    repository.record(ME, {job.id: ([], JobProgress(bytes_done=7, bytes_total=9))})
    assert _generation(job) == before


def test_the_end_changes_every_file_that_was_unfinished(job: DownloadJob, plan: Plan) -> None:
    done = [FileReport(plan.items[0], FileState.SUCCEEDED, bytes_done=5)]
    repository.record(ME, {job.id: (done, JobProgress(1, 0, 5))})
    before = _generation(job)
    transitions.finish(job.id, ME, [], JobProgress(1, 0, 5), "it broke")
    assert _generation(job) > before
    assert _changed(job, before) == [1, 2, 3]


def _pause(job: DownloadJob) -> None:
    assert transitions.pause(job.id, ME, [], JobProgress(), "")


def _pause_and_take(job: DownloadJob) -> None:
    _pause(job)
    assert transitions.requeue(DownloadJob.objects.get(id=job.id), ME)


def _pause_and_cancel(job: DownloadJob) -> None:
    _pause(job)
    assert transitions.cancel(job.id)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda job: transitions.request_cancel(job.id), id="cancel-asked"),
        pytest.param(lambda job: transitions.request_pause(job.id), id="pause-asked"),
        pytest.param(_pause, id="paused"),
        pytest.param(_pause_and_take, id="taken"),
        pytest.param(_pause_and_cancel, id="cancelled"),
        pytest.param(
            lambda job: listing_rows.mark_listed_all(job.id, ME, job.token), id="listed-all"
        ),
        pytest.param(
            lambda job: listing_rows.add_files(job.id, ME, job.token, BATCH_FILES),
            id="files-added",
        ),
    ],
)
def test_every_write_that_can_be_seen_is_a_change(
    job: DownloadJob, plan: Plan, change: Callable[[DownloadJob], object]
) -> None:
    before = _generation(job)
    change(job)
    assert _generation(job) > before


def test_files_that_join_are_changed_and_the_others_are_not(job: DownloadJob, plan: Plan) -> None:
    before = _generation(job)
    listing_rows.add_files(job.id, ME, job.token, BATCH_FILES)
    assert _changed(job, before) == [4]
