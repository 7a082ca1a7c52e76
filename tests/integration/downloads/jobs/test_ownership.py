"""Ownership of jobs: release, adoption, and what a former owner can still do."""

import uuid
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import listing_rows, ownership, repository, rows, transitions
from cacheapp.downloads.jobs.listing_rows import Batch
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner, OrphanDetector
from cacheapp.downloads.plan import FileReport, JobProgress, Plan
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.states import FileState
from tests.integration.downloads.parts import named, refuse_takeovers

pytestmark = pytest.mark.django_db

ME = JobOwner(uuid.uuid4(), 1111)
OTHER = JobOwner(uuid.uuid4(), 1111)  # the same process id, on another host or later
THIRD = JobOwner(uuid.uuid4(), 3333)
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


def _fresh(job: DownloadJob) -> DownloadJob:
    return DownloadJob.objects.get(id=job.id)


def _states(job: DownloadJob) -> list[str]:
    return list(job.files.order_by("position").values_list("state", flat=True))


def test_a_job_whose_heartbeat_does_not_change_for_a_time_is_lost(job: DownloadJob) -> None:
    detector = OrphanDetector()
    assert detector.orphans([_fresh(job)], 100.0, 3.0) == []
    assert detector.orphans([_fresh(job)], 102.9, 3.0) == []
    assert [found.id for found in detector.orphans([_fresh(job)], 103.0, 3.0)] == [job.id]


def test_a_heartbeat_restarts_the_wait(job: DownloadJob) -> None:
    detector = OrphanDetector()
    detector.orphans([_fresh(job)], 100.0, 3.0)
    repository.record(ME, {})
    assert detector.orphans([_fresh(job)], 103.0, 3.0) == []
    assert detector.orphans([_fresh(job)], 105.9, 3.0) == []
    assert len(detector.orphans([_fresh(job)], 106.0, 3.0)) == 1


def test_a_released_job_is_an_orphan_at_once(job: DownloadJob, plan: Plan) -> None:
    assert transitions.release(job.id, ME, plan.token, [], JobProgress())
    assert len(OrphanDetector().orphans([_fresh(job)], 100.0, 3.0)) == 1


def test_a_step_of_the_wall_clock_orphans_no_job(job: DownloadJob) -> None:
    detector = OrphanDetector()
    DownloadJob.objects.update(heartbeat_at=rows.now().replace(year=1999))
    assert detector.orphans([_fresh(job)], 100.0, 3.0) == []


def test_exactly_one_adopts_a_lost_job(job: DownloadJob, plan: Plan) -> None:
    running = [FileReport(plan.items[0], FileState.RUNNING, bytes_done=3)]
    repository.record(ME, {job.id: (running, JobProgress(bytes_done=3))})
    seen = [_fresh(job) for _ in range(3)]
    owners = [OTHER, THIRD, ME]
    assert [transitions.adopt(found, owner) for found, owner in zip(seen, owners, strict=True)] == [
        *(True, False, False),
    ]
    found = _fresh(job)
    assert (found.state, found.owner, found.adoptions) == ("queued", OTHER.token, 1)
    assert found.token == plan.token + 1
    assert _states(job) == ["queued"] * 4


def test_an_owner_that_comes_back_in_time_keeps_its_job(job: DownloadJob, plan: Plan) -> None:
    seen = _fresh(job)
    assert repository.record(ME, {job.id: ([], JobProgress())}).lost == frozenset()
    assert not transitions.adopt(seen, OTHER)
    assert _fresh(job).state == "running"


def test_an_earlier_run_loses_a_job_that_had_another_owner_in_between(
    job: DownloadJob, plan: Plan
) -> None:
    assert transitions.adopt(_fresh(job), OTHER)
    assert transitions.adopt(_fresh(job), ME)  # the same process again, but another run
    late = [FileReport(plan.items[0], FileState.RUNNING, bytes_done=3)]
    told = repository.record(ME, {job.id: (late, JobProgress(bytes_done=3))}, {job.id: plan.token})
    assert told.lost == {job.id}
    assert _states(job) == ["queued"] * 4
    assert not ownership.has_token(job.id, ME, plan.token)


def test_what_a_released_run_has_done_is_recorded(job: DownloadJob, plan: Plan) -> None:
    reports = [
        FileReport(plan.items[0], FileState.SUCCEEDED, bytes_done=5, sha256="ab"),
        FileReport(plan.items[1], FileState.RUNNING, bytes_done=2),
    ]
    assert transitions.release(job.id, ME, plan.token, reports, JobProgress(1, 0, 7))
    found = _fresh(job)
    assert (found.state, found.owner, found.owner_pid) == ("queued", None, None)
    assert (found.files_done, found.bytes_done) == (1, 7)
    assert _states(job) == ["succeeded", "queued", "queued", "queued"]
    assert transitions.adopt(found, OTHER)


def test_all_that_a_process_has_is_released(job: DownloadJob, plan: Plan) -> None:
    waiting = repository.create(DownloadRequest(URLS, threads=1), ME)
    foreign = repository.create(DownloadRequest(URLS, threads=1), OTHER)
    transitions.release_all(ME)
    assert [_fresh(found).owner for found in (job, waiting, foreign)] == [None, None, OTHER.token]
    assert {found.state for found in DownloadJob.objects.all()} == {"queued"}


def test_a_lost_job_with_a_cancel_request_ends_and_keeps_its_complete_files(
    job: DownloadJob, plan: Plan
) -> None:
    assert transitions.request_cancel(job.id)
    assert transitions.adopt(_fresh(job), OTHER)
    whole = [FileReport(plan.items[1], FileState.SUCCEEDED, bytes_done=5)]
    assert transitions.end_without_run(_fresh(job), OTHER, whole, "")
    found = _fresh(job)
    assert (found.state, found.files_done) == ("cancelled", 1)
    assert _states(job) == ["cancelled", "succeeded", "cancelled", "cancelled"]
    assert not transitions.end_without_run(found, OTHER, [], "")


def test_a_queued_job_is_cancelled_even_if_all_its_files_are_complete(
    job: DownloadJob, plan: Plan
) -> None:
    """No job succeeds without a run; and the attempt must not break the tick of its coordinator."""
    assert transitions.request_cancel(job.id)
    assert transitions.adopt(_fresh(job), OTHER)
    whole = [FileReport(item, FileState.SUCCEEDED, bytes_done=5) for item in plan.items]
    assert transitions.end_without_run(_fresh(job), OTHER, whole, "")
    assert (_fresh(job).state, _fresh(job).files_done) == ("cancelled", 4)


def _of_a_terminal(directory: Path) -> tuple[DownloadJob, Plan]:
    """Return a job whose process was killed after it had published one of two files."""
    listed = listing_rows.create_job("s3://files/x", "f" * 64, directory, 9, ME)
    plan = repository.start(listed, ME, None, stream=True)
    assert plan is not None
    entries = [SourceEntry(name, f"https://a/{name}", name) for name in "ab"]
    assert listing_rows.add_files(listed.id, ME, plan.token, Batch(entries, "", "b")) is not None
    listed.refresh_from_db()
    named(listed, "a", b"whole")
    return _fresh(listed), plan


def test_a_lost_job_of_a_terminal_is_paused_not_adopted(tmp_path: Path) -> None:
    listed, plan = _of_a_terminal(tmp_path / "to")
    seen = [_fresh(listed) for _ in range(2)]
    assert [transitions.pause_lost(found, "process 1111 ended") for found in seen] == [True, False]
    found = _fresh(listed)
    assert (found.state, found.error) == ("paused", "process 1111 ended")
    assert found.token > plan.token


def test_a_lost_job_of_a_terminal_with_a_cancel_request_keeps_its_complete_files(
    tmp_path: Path,
) -> None:
    listed, plan = _of_a_terminal(tmp_path / "to")
    late = repository.run_directory_of(listed, plan.token)
    assert late is not None
    assert transitions.request_cancel(listed.id)
    seen = [_fresh(listed) for _ in range(2)]
    assert [transitions.cancel_lost(found) for found in seen] == [True, False]
    assert (_fresh(listed).state, _states(listed)) == ("cancelled", ["succeeded", "cancelled"])
    assert not late.exists()  # its process, if it was but suspended, names no file any more
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["a"]


def test_a_job_of_a_terminal_whose_directory_is_out_of_reach_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, _ = _of_a_terminal(tmp_path / "to")
    assert transitions.request_cancel(listed.id)
    refuse_takeovers(monkeypatch)
    assert transitions.cancel_lost(_fresh(listed))
    assert _fresh(listed).state == "cancelled"


def test_a_paused_job_of_a_terminal_whose_directory_is_out_of_reach_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, _ = _of_a_terminal(tmp_path / "to")
    assert transitions.pause_lost(listed, "process 1111 ended")
    refuse_takeovers(monkeypatch)
    assert transitions.cancel(listed.id)
    assert _fresh(listed).state == "cancelled"
