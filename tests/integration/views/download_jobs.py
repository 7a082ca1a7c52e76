"""Download jobs in a given state, with the files of complete ones."""

import uuid
from pathlib import Path

from django.contrib.auth.models import User

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.actors import Actor
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.sources.request import DownloadRequest

URL = "https://files.example.com"
OWNER = JobOwner(uuid.uuid4(), 4711)
VERBS = [f"{verb}_downloadjob" for verb in ("view", "add", "change")]
CONTENT = b"0123456789"


def job_of(user: User, state: str, *names: str) -> DownloadJob:
    """Create a job of the user; the files of a succeeded one are on disk."""
    by = Actor(f"user:{user.pk}", f"user {user.pk} ({user})", "api")
    order = DownloadRequest(tuple(f"{URL}/{name}" for name in names), threads=1)
    job = repository.create(order, OWNER, by)
    of_files = "queued" if state == "paused" else state
    job.files.update(state=of_files, bytes_done=10 if state == "succeeded" else 0)
    failed = len(names) if state == "failed" else 0
    done = len(names) if state == "succeeded" else 0
    DownloadJob.objects.filter(id=job.id).update(state=state, files_failed=failed, files_done=done)
    job.refresh_from_db()
    if state == "succeeded":
        directory = repository.destination_of(job, None if job.destination else download_root())
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).write_bytes(CONTENT)
    return job


def download_root() -> Path:
    """Return the directory of all downloads of the test."""
    from cacheapp.conf import conf  # noqa: PLC0415 (it reads the settings of the test)

    found = conf().download_root
    assert found is not None
    return found
