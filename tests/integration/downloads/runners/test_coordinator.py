"""A coordinator with jobs that go wrong: each is that job's affair, and each comes to an end."""

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError
from pytest_django.fixtures import Settings

from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.jobs import listing_rows, ownership, repository, rows, transitions
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners.bucket_opener import BucketOpener
from cacheapp.downloads.runners.coordinator import Coordinator
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.sources.base import SourceRefused
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.processes.waiting import until
from tests.integration.downloads.parts import refuse_takeovers, run_directory_of
from tests.objects import Thing, Version
from tests.origin import Origin

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path, origin: Origin) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_ROOT": tmp_path,
        "DOWNLOAD_ORIGINS": [origin.url],
        "STATE_DIR": tmp_path / "state",
    }


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    found = Coordinator()
    yield found
    found.close(60)


def _job(origin: Origin, owner: JobOwner, name: str = "a") -> DownloadJob:
    return repository.create(DownloadRequest((f"{origin.url}/file/{name}",), threads=1), owner)


def _left(job: DownloadJob) -> tuple[str, str]:
    """Return how a job has ended, once it has."""

    def ended() -> bool:
        job.refresh_from_db()
        return job.state not in {"queued", "running"}

    until(ended, "the job to end", 100)
    return job.state, job.error


def test_a_coordinator_that_could_not_start_its_thread_starts_it_at_the_next_call(
    coordinator: Coordinator, origin: Origin
) -> None:
    job = _job(origin, coordinator.owner)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no new thread")):
        coordinator.wake()
    coordinator.wake()
    assert _left(job) == ("succeeded", "")


def test_a_bucket_whose_thread_could_not_start_is_opened_at_the_next_call() -> None:
    opened = threading.Event()
    opener = BucketOpener(opened.set)
    job = DownloadJob(id=uuid.uuid4(), source="s3://not-allowed/", files_total=0)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no new thread")):
        assert opener.take(job) is None
    assert opener.take(job) is None
    assert opened.wait(30)
    with pytest.raises(SourceRefused):
        opener.take(job)


def _break_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the database break off after a job was written as running, once."""
    stock = rows.progress_of
    broken: list[bool] = []

    def progress_of(*args: Any, **kwargs: Any) -> Any:
        if not broken:
            broken.append(True)
            raise OperationalError("server closed the connection unexpectedly")
        return stock(*args, **kwargs)

    monkeypatch.setattr(repository, "progress_of", progress_of)


def test_a_job_that_is_running_only_in_the_database_is_resumed(
    coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_once(monkeypatch)
    job = _job(origin, coordinator.owner)
    coordinator.wake()
    assert _left(job) == ("succeeded", "")
    assert job.adoptions == 1  # by the only coordinator, which had it before


def test_a_job_that_is_running_only_in_the_database_can_be_cancelled(
    coordinator: Coordinator, origin: Origin
) -> None:
    job = _job(origin, coordinator.owner)
    DownloadJob.objects.update(state="running", token=1, cancel_requested=True)
    coordinator.wake()
    assert _left(job)[0] == "cancelled"


def test_a_job_whose_directory_cannot_be_written_does_not_delay_others(
    coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = _job(origin, coordinator.owner)
    run_directory_of(bad)
    assert transitions.request_cancel(bad.id)
    with monkeypatch.context() as patched:
        refuse_takeovers(patched, bad.id.hex[:12])
        good = _job(origin, coordinator.owner, "b")
        coordinator.wake()
        assert _left(good) == ("succeeded", "")
        bad.refresh_from_db()
        assert bad.state == "queued"
    coordinator.wake()
    assert _left(bad)[0] == "cancelled"  # as soon as its directory can be written


def test_a_root_that_another_user_could_replace_is_refused_when_a_job_starts(
    coordinator: Coordinator, origin: Origin, settings: Settings, tmp_path: Path
) -> None:
    root = tmp_path / "open"
    root.mkdir()
    root.chmod(0o777)
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": root}
    job = _job(origin, coordinator.owner)
    coordinator.wake()
    state, error = _left(job)
    assert state == "failed"
    assert "CACHEAPP['DOWNLOAD_ROOT']" in error
    assert "nothing was saved" in error
    assert list(root.iterdir()) == []


def test_the_bytes_of_a_file_that_failed_stay_for_a_retry(
    coordinator: Coordinator, origin: Origin, settings: Settings, tmp_path: Path
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_TRIES": 1}
    thing = origin.things["breaks"] = Thing([Version(b"x" * 5000, '"v"')], cuts=[1000])
    url = f"{origin.url}/thing/breaks"
    job = repository.create(DownloadRequest((url,), threads=1), coordinator.owner)
    coordinator.wake()
    assert _left(job) == ("failed", "1 of 1 files failed")
    kept = "ended after 1000 of 5000 bytes; 1000 bytes are kept for a retry"
    assert job.files.get().error == kept
    assert transitions.requeue(job, coordinator.owner)
    coordinator.wake()
    assert _left(job) == ("succeeded", "")
    assert [fields.get("range") for fields in thing.asked] == [None, "bytes=1000-"]
    directory = tmp_path / str(job.id)
    until(lambda: len(list(directory.iterdir())) == 1, "the directory of the run to be removed")
    assert (directory / "breaks").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("content", [b"\0\0\0\0 10 5 -\n", b"\xff\xfe\n1 2 3", b"x 1 2 -\n"])
def test_a_job_succeeds_although_a_power_cut_damaged_its_journal(
    coordinator: Coordinator, origin: Origin, content: bytes
) -> None:
    job = _job(origin, JobOwner(coordinator.owner.token, os.getpid()))
    DownloadJob.objects.update(token=1)
    job.refresh_from_db()
    (run_directory_of(job).path / "1.journal").write_bytes(content)
    coordinator.wake()
    assert _left(job) == ("succeeded", "")


def test_a_job_whose_start_takes_long_keeps_its_owner(
    coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_HEARTBEAT_S": 5.0}
    continues, stock = threading.Event(), JobRun.start

    def start(run: JobRun) -> None:
        assert continues.wait(120)
        stock(run)

    monkeypatch.setattr(JobRun, "start", start)
    job = _job(origin, coordinator.owner)
    other = Coordinator()
    heartbeats = set()

    def beats() -> bool:
        job.refresh_from_db()
        heartbeats.add(job.heartbeat_at)
        return len(heartbeats) > 8  # more than a period, after which it would be lost

    coordinator.wake()
    other.wake()
    try:
        until(beats, "heartbeats", 100)
    finally:
        continues.set()
        other.close(60)
    assert _left(job) == ("succeeded", "")
    assert (job.adoptions, job.owner) == (0, coordinator.owner.token)


def test_a_slow_disk_of_a_terminals_job_does_not_delay_the_coordinator(
    coordinator: Coordinator, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = JobOwner(uuid.uuid4(), 1)
    gone = listing_rows.create_job("list.txt", "f" * 64, tmp_path / "to", 1, terminal)
    assert repository.start(gone, terminal, None, stream=True) is not None
    assert transitions.request_cancel(gone.id)
    DownloadJob.objects.update(owner=None)  # so that it is an orphan at once
    asked, answers, stock = threading.Event(), threading.Event(), transitions.end_queued

    def end(job: DownloadJob, owner: JobOwner, error: str) -> None:
        asked.set()
        assert answers.wait(120)
        stock(job, owner, error)

    monkeypatch.setattr(transitions, "end_queued", end)
    coordinator.wake()
    try:
        assert asked.wait(30)
        good = _job(origin, coordinator.owner)
        coordinator.wake()
        assert _left(good) == ("succeeded", "")
    finally:
        answers.set()
    assert _left(gone)[0] == "cancelled"
    settler = "downloads-terminal-cleanup"
    until(lambda: settler not in {it.name for it in threading.enumerate()}, "its thread to end")


def _fail(*_: Any, **__: Any) -> None:
    raise ValueError("nobody has thought of it")


@pytest.mark.parametrize("owner", [JobRun, Feeder])
def test_a_run_that_cannot_be_started_ends_its_job_whatever_the_reason(
    owner: type, coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "start", _fail)
    if owner is Feeder:
        monkeypatch.setattr("cacheapp.downloads.runners.coordinator.is_listed", lambda _job: True)
        bucket = type("Open", (), {"origin": origin.url, "trusted": frozenset(), "sign": None})()
        monkeypatch.setattr(
            "cacheapp.downloads.runners.bucket_opener.BucketOpener.take", lambda *_: bucket
        )
    job = _job(origin, coordinator.owner)
    coordinator.wake()
    error = "could not be started: internal error: ValueError"
    assert _left(job) == ("failed", error)
    assert ownership.unfinished_jobs() == []


def test_a_run_that_cannot_be_created_ends_its_job(
    coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheapp.downloads.engine.run.connections.pool_manager", _fail)
    job = _job(origin, coordinator.owner)
    coordinator.wake()
    assert _left(job)[1] == "could not be started: internal error: ValueError"


def test_a_run_that_cannot_start_leaves_the_directory_to_the_next_owner(
    coordinator: Coordinator, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(origin, coordinator.owner)
    taker = JobOwner(uuid.uuid4(), 4711)
    lost = threading.Event()
    places: list[Path] = []

    def lose(run: JobRun) -> None:
        places.append(run.plan.directory / f".{job.id.hex[:12]}.{run.plan.token}")
        places[0].mkdir(parents=True)
        assert transitions.adopt(DownloadJob.objects.get(id=job.id), taker)
        lost.set()
        raise OSError("the disk says no")

    monkeypatch.setattr(JobRun, "start", lose)
    coordinator.wake()
    assert lost.wait(30)
    until(lambda: job.id not in coordinator._runs, "the run to be over")  # noqa: SLF001
    assert places[0].is_dir()
