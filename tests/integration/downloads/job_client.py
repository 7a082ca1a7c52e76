"""A process that executes commands on jobs, one line of JSON each: `[name, arguments…]`."""

import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.test import override_settings

django.setup()

from cacheapp.downloads.jobs import (  # noqa: E402 (Django first)
    deletion,
    repository,
    retention,
    transitions,
)
from cacheapp.downloads.jobs.actors import Actor  # noqa: E402 (Django first)
from cacheapp.downloads.jobs.deletion import RemovalRefused  # noqa: E402
from cacheapp.downloads.jobs.idempotency import IdempotentOrder, KeyReused  # noqa: E402
from cacheapp.downloads.jobs.models import DownloadJob  # noqa: E402
from cacheapp.downloads.jobs.ownership import JobOwner  # noqa: E402
from cacheapp.downloads.jobs.quota import QuotaExceeded  # noqa: E402
from cacheapp.downloads.plan import FileReport, JobProgress  # noqa: E402
from cacheapp.downloads.sources.request import DownloadRequest  # noqa: E402
from cacheapp.downloads.states import UNFINISHED_JOB, FileState  # noqa: E402

ME = JobOwner(uuid.uuid4(), os.getpid())
_seen: dict[str, DownloadJob] = {}


def create() -> str:
    """Make a job and run it."""
    job = repository.create(DownloadRequest(("https://a/1", "https://a/2"), threads=1), ME)
    repository.start(job, ME, Path("/nowhere"))
    return str(job.id)


def create_for_anybody() -> str:
    """Make a job that waits for a task of Celery's."""
    return str(repository.create(DownloadRequest(("https://a/1",), threads=1), None).id)


def see(job_id: str) -> bool:
    """Read the job; what is done with it later is done with what was read now."""
    _seen[job_id] = DownloadJob.objects.get(id=job_id)
    return True


def adopt(job_id: str) -> bool:
    return transitions.adopt(_seen[job_id], ME)


def take(job_id: str) -> bool:
    return transitions.requeue(_seen[job_id], ME)


def pause(job_id: str) -> bool:
    return bool(transitions.pause(uuid.UUID(job_id), ME, [], JobProgress(), ""))


def record(job_id: str, size: int) -> bool:
    """Record progress as the owner; return whether the job was still ours."""
    rows = repository.unfinished_items(uuid.UUID(job_id))
    reports = [FileReport(rows[0], FileState.RUNNING, bytes_done=size)] if rows else []
    told = repository.record(ME, {uuid.UUID(job_id): (reports, JobProgress(bytes_done=size))})
    return not told.lost


def finish(job_id: str) -> str | None:
    """End the job as its owner."""
    return transitions.finish(uuid.UUID(job_id), ME, [], JobProgress(), "it broke")


def request_cancel(job_id: str) -> bool:
    return transitions.cancel(uuid.UUID(job_id))


def place(key: str, url: str) -> list[Any]:
    """Place an order under a key; return the job, and whether it was made now."""
    wanted = IdempotentOrder(Actor("user:1", "user 1 (ann)", "api"), key, {"urls": [url]})
    try:
        job, made = repository.create_once(DownloadRequest((url,), threads=1), ME, wanted)
    except KeyReused:
        return ["used", False]
    return [str(job.id), made]


def place_within(quota: int, creator: str, orders: int) -> list[bool]:
    """Place orders of a creator who may have `quota` unfinished jobs; return which were accepted."""
    by = Actor(creator, creator, "api")
    accepted = []
    with override_settings(CACHEAPP={**settings.CACHEAPP, "DOWNLOAD_MAX_USER_JOBS": quota}):
        for _ in range(orders):
            try:
                repository.create(DownloadRequest(("https://a/1",), threads=1), ME, by)
                accepted.append(True)
            except QuotaExceeded:
                accepted.append(False)
    return accepted


def retry_within(quota: int, job_id: str) -> bool:
    """Retry a job that was read before; return whether it was queued."""
    with override_settings(CACHEAPP={**settings.CACHEAPP, "DOWNLOAD_MAX_USER_JOBS": quota}):
        try:
            return transitions.requeue(_seen[job_id], ME)
        except QuotaExceeded:
            return False


def end(job_id: str) -> bool:
    """End a job whose run has not begun."""
    job = DownloadJob.objects.get(id=job_id)
    return transitions.end_without_run(job, ME, [], "it broke") is not None


def jobs_of(creator: str) -> list[str]:
    return [
        str(it) for it in DownloadJob.objects.filter(creator=creator).values_list("id", flat=True)
    ]


def unfinished_of(creator: str) -> int:
    return DownloadJob.objects.filter(creator=creator, state__in=UNFINISHED_JOB).count()


def remove(job_id: str) -> bool:
    try:
        deletion.remove(_seen[job_id], with_files=False)
    except RemovalRefused:
        return False
    return True


def take_back(job_id: str) -> bool:
    """Remove the record of a job that no broker accepted, unless it has an owner all the same."""
    return deletion.delete_record(DownloadJob.objects.filter(id=job_id, owner=None))


def prune(job_id: str) -> bool:
    """Remove all records of jobs that have ended; return whether that of this job was there."""
    was_there = exists(job_id)
    retention.prune(-60.0)
    return was_there


def exists(job_id: str) -> bool:
    return DownloadJob.objects.filter(id=job_id).exists()


def show(job_id: str) -> dict[str, Any]:
    job = DownloadJob.objects.get(id=job_id)
    return {
        "state": job.state,
        "owner": str(job.owner),
        "mine": job.owner == ME.token,
        "adoptions": job.adoptions,
        "generation": job.generation,
        "newest_file": max(job.files.values_list("generation", flat=True)),
    }


ORDERS: list[Callable[..., Any]] = [
    *(create, see, adopt, take, pause, record, finish, request_cancel, show),
    *(place_within, retry_within, end, jobs_of, unfinished_of),
    *(create_for_anybody, take_back, place, remove, prune, exists),
]


def main() -> None:
    orders = {order.__name__: order for order in ORDERS}
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(orders[name](*arguments)), flush=True)


if __name__ == "__main__":
    main()
