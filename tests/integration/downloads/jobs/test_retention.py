"""What is removed when it is old, and what never is."""

import datetime as dt
import os
import shutil
import uuid
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import repository, retention, rows, transitions
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.jobs.retention import Pruned
from cacheapp.downloads.plan import JobProgress
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.downloads.storage.run_directory import RunDirectory

pytestmark = pytest.mark.django_db

ME = JobOwner(uuid.uuid4(), 1111)
DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def root(settings: Settings, tmp_path: Path) -> Path:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": tmp_path / "root"}
    return tmp_path / "root"


def _job(root: Path, state: str, *, days_old: float) -> DownloadJob:
    """Create a job with one complete file and a partial one, of that age."""
    job = repository.create(DownloadRequest(("https://a/1", "https://a/2"), threads=1), ME)
    run_directory = RunDirectory(root / str(job.id), job.id.hex[:12], 1)
    run_directory.take_over()
    (run_directory.directory / "1").write_bytes(b"whole")
    (run_directory.path / "partial").write_bytes(b"par")
    moment = rows.now() - dt.timedelta(days=days_old)
    for path in (run_directory.path / "partial", run_directory.path):
        os.utime(path, (moment.timestamp(), moment.timestamp()))
    if state == "failed":
        transitions.finish(job.id, ME, [], JobProgress(), "it broke")
    DownloadJob.objects.filter(id=job.id).update(
        state=state, finished_at=moment if state == "failed" else None, heartbeat_at=moment
    )
    return job


def _left(root: Path, job: DownloadJob) -> list[str]:
    directory = root / str(job.id)
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def test_old_finished_jobs_are_removed_and_their_complete_files_stay(root: Path) -> None:
    old, young = (_job(root, "failed", days_old=days) for days in (3, 1))
    assert retention.prune(2 * DAY_S) == Pruned(jobs=1, partials=1)
    assert list(DownloadJob.objects.values_list("id", flat=True)) == [young.id]
    assert set(DownloadFile.objects.values_list("job", flat=True)) == {young.id}
    assert _left(root, old) == ["1"]
    assert _left(root, young) == ["1", "partial"]


def test_partial_files_of_a_terminal_go_with_the_record_and_its_other_files_stay(
    root: Path, tmp_path: Path
) -> None:
    job = _job(root, "failed", days_old=3)
    (root / str(job.id)).rename(tmp_path / "to")
    DownloadJob.objects.filter(id=job.id).update(destination=str(tmp_path / "to"))
    assert retention.prune(4 * DAY_S) == Pruned(0, 0)
    assert len(list((tmp_path / "to").iterdir())) == 2
    assert retention.prune(DAY_S).jobs == 1
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["1"]


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_nothing_of_an_unfinished_job_is_touched_however_old(root: Path, state: str) -> None:
    job = _job(root, state, days_old=1000)
    assert retention.prune(DAY_S) == Pruned(0, 0)
    assert _left(root, job) == ["1", "partial"]


def test_partial_files_of_a_job_that_is_forgotten_go(root: Path) -> None:
    job = _job(root, "failed", days_old=3)
    DownloadJob.objects.all().delete()
    (root / str(job.id) / "1").unlink()
    assert retention.prune(DAY_S) == Pruned(jobs=0, partials=1)
    assert list(root.iterdir()) == []  # and its directory, which has nothing else


def test_what_a_pruning_that_was_killed_has_left_goes_with_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(root, "failed", days_old=3)
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_args, **_how: None)
        assert retention.prune(DAY_S) == Pruned(jobs=1, partials=1)
    assert _left(root, job) == ["1", "partial"]
    assert retention.prune(DAY_S) == Pruned(jobs=0, partials=1)
    assert _left(root, job) == ["1"]


def test_two_processes_can_prune_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(root, "failed", days_old=3)
    (root / str(job.id) / "1").unlink()
    ask = retention._is_unfinished  # noqa: SLF001 (between it and what follows, the other is done)

    def other_is_done(name: str) -> bool:
        found = ask(name)
        shutil.rmtree(root / name)
        return found

    monkeypatch.setattr(retention, "_is_unfinished", other_is_done)
    assert retention.prune(DAY_S) == Pruned(jobs=1, partials=0)


def test_what_is_not_ours_is_left_alone(root: Path) -> None:
    strange = root / "somebody's" / ".0123456789ab.1"
    strange.mkdir(parents=True)
    os.utime(strange, (0, 0))
    assert retention.prune(0.0) == Pruned(0, 0)
    assert strange.exists()


def test_the_command_prunes_what_the_setting_or_the_option_calls_old(
    root: Path, settings: Settings
) -> None:
    _job(root, "failed", days_old=3)
    out = StringIO()
    call_command("downloads", "--prune", stdout=out)
    assert out.getvalue() == "removed 0 finished jobs and the partial files of 0 runs\n"
    call_command("downloads", "--prune", "--older-than", str(DAY_S), stdout=out)
    assert out.getvalue().endswith("removed 1 finished jobs and the partial files of 1 runs\n")
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_RETENTION_S": None}
    with pytest.raises(CommandError, match="DOWNLOAD_RETENTION_S is None; expected --older-than"):
        call_command("downloads", "--prune")


def test_the_command_lists_jobs_and_their_owners(root: Path) -> None:
    running = _job(root, "running", days_old=0)
    failed = _job(root, "failed", days_old=1)
    out = StringIO()
    call_command("downloads", stdout=out)
    newest, oldest = out.getvalue().splitlines()
    assert f"{failed.id}  failed     0/2 files  0 bytes  it broke" in newest
    assert f"{running.id}  running    0/2 files" in oldest
    assert "by process 1111, adopted 0 times" in oldest
