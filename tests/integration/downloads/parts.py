"""State that earlier runs leave on disk, created directly, for tests of later runs."""

import os

import pytest

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.storage.journal import Journal, PublishedFile
from cacheapp.downloads.storage.run_directory import RunDirectory


def run_directory_of(job: DownloadJob) -> RunDirectory:
    """Return the run directory of the job, taken over."""
    run_directory = repository.run_directory_of(job, job.token)
    assert run_directory is not None
    run_directory.take_over()
    return run_directory


def named(job: DownloadJob, name: str, content: bytes) -> None:
    """Leave a published file with a journal entry, of a run killed before it recorded it."""
    run_directory = run_directory_of(job)
    target = run_directory.directory / name
    target.write_bytes(content)
    journal = Journal(run_directory.path, run_directory.token)
    journal.open()
    position = job.files.get(name=name).position
    journal.append(position, PublishedFile(len(content), "ab" * 32, target.stat().st_ino))
    journal.close()


def refuse_takeovers(monkeypatch: pytest.MonkeyPatch, job: str | None = None) -> None:
    """Make takeovers fail, like in another user's directory: of one job, or of all."""
    stock = RunDirectory.take_over

    def take_over(run_directory: RunDirectory) -> None:
        if job in {None, run_directory.job}:
            raise PermissionError(13, os.strerror(13), str(run_directory.directory))
        stock(run_directory)

    monkeypatch.setattr(RunDirectory, "take_over", take_over)
