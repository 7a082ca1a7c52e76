"""Removes a job that nobody runs, with or without its files, or its record alone.

Invariant: once the rows are gone, no former owner, however long it slept, gives a file of the job its
name: the fence is raised before that can be seen. Who is killed between the rows and the files leaves
a directory that no job names. Nobody can take the job up meanwhile: that locks the same row.
"""

import logging
import shutil

from django.db import transaction
from django.db.models import QuerySet

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import run_directory_of
from cacheapp.downloads.states import OWNED_JOB
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


class RemovalRefused(CacheappError):
    """The job is still there, with all its files; the message says why."""


@transaction.atomic
def delete_record(jobs: QuerySet[DownloadJob]) -> bool:
    """Remove the record of the one job that is asked for, if it still is as asked.

    Asked under the row's lock, as whoever takes it up does: `QuerySet.delete` reads what it deletes
    before its transaction begins, and would delete a job that somebody has taken up in between.
    """
    found = jobs.select_for_update().first()
    if found is None:
        return False
    found.delete()
    return True


def remove(job: DownloadJob, *, with_files: bool) -> bool:
    """Remove a job; return whether files of it are left. Partial files always go.

    Raise `RemovalRefused` for a job that somebody runs, and for files in a directory that holds others
    too.
    """
    if with_files and job.destination:
        raise RemovalRefused(
            f"its files lie in {job.destination} among others; only keep can be asked"
        )
    with transaction.atomic():
        found = DownloadJob.objects.select_for_update().filter(id=job.id).first()
        if found is None:
            raise RemovalRefused("somebody else has removed it")
        if found.state in OWNED_JOB:
            raise RemovalRefused(
                f"the job is {found.state}; expected one that is paused or has ended"
            )
        run_directory = run_directory_of(found, found.token + 1)
        if run_directory is not None and run_directory.has_directories():
            try:
                run_directory.take_over()
            except OSError as exc:
                raise RemovalRefused(f"its directory cannot be written: {exc.strerror}") from exc
        found.delete()
    logger.info(
        *("job %s: removed, files %s", job.id, "too" if with_files else "kept"),
        extra={"event": "job_removed", "job": str(job.id)},
    )
    if run_directory is None:
        return True
    run_directory.remove_all()
    if with_files:
        shutil.rmtree(run_directory.directory, ignore_errors=True)
    return run_directory.directory.exists()
