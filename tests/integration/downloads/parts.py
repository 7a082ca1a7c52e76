"""What earlier runs leave, made at once: for tests of who comes after them."""

import os

import pytest

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.storage.journal import Journal, Published
from cacheapp.downloads.storage.run_directory import Fence


def fence_of(job: DownloadJob) -> Fence:
    """Return the raised fence of the job's run."""
    fence = repository.fence_of(job, job.token)
    assert fence is not None
    fence.raise_()
    return fence


def named(job: DownloadJob, name: str, content: bytes) -> None:
    """Leave a file that was named and noted, by a run that was killed before it could record it."""
    fence = fence_of(job)
    target = fence.directory / name
    target.write_bytes(content)
    journal = Journal(fence.path, fence.token)
    journal.open()
    position = job.files.get(name=name).position
    journal.note(position, Published(len(content), "ab" * 32, target.stat().st_ino))
    journal.close()


def refuse_fences(monkeypatch: pytest.MonkeyPatch, job: str | None = None) -> None:
    """Have fences not be raised, as where the directory is another user's: of one job, or of all."""
    stock = Fence.raise_

    def raise_(fence: Fence) -> None:
        if job in {None, fence.job}:
            raise PermissionError(13, os.strerror(13), str(fence.directory))
        stock(fence)

    monkeypatch.setattr(Fence, "raise_", raise_)
