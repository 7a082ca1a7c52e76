"""Removes jobs that no process runs, with or without their files.

Invariant: after the rows are gone, no former owner publishes a file of the job, however long it was
suspended: its run directory is taken over before the removal is visible. No process can adopt or resume
the job during that, because both lock the same row. A process that is killed between removing the rows and
the files leaves a directory without a job.
"""

import logging
import shutil

from django.db import transaction
from django.db.models import QuerySet

from cacheapp.downloads.jobs import audit
from cacheapp.downloads.jobs.actors import CODE, Actor
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import run_directory_of
from cacheapp.downloads.states import OWNED_JOB
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


class RemovalRefused(CacheappError):
    """The job and all its files are unchanged; the message gives the reason."""


@transaction.atomic
def delete_record(jobs: QuerySet[DownloadJob], by: Actor = CODE) -> bool:
    """Delete the record of the one job that a query still finds, for `by`; return whether it did.

    The query runs under the row's lock, which adopting and resuming a job need too. `QuerySet.delete`
    alone reads the rows before its transaction begins, and would delete a job that another process has
    adopted in between.
    """
    found = jobs.select_for_update().first()
    if found is None:
        return False
    audit.record(found.id, audit.DELETE, by)
    found.delete()
    return True


def remove(job: DownloadJob, *, with_files: bool, by: Actor = CODE) -> bool:
    """Remove a job, and its partial files; return whether other files of it are left.

    Raise `RemovalRefused` for a queued or running job, and if `with_files` is True and the
    job's directory may hold other files too.
    """
    if with_files and job.destination:
        raise RemovalRefused(
            f"its directory {job.destination} may hold other files; expected files=keep"
        )
    with transaction.atomic():
        found = DownloadJob.objects.select_for_update().filter(id=job.id).first()
        if found is None:
            raise RemovalRefused("the job is already removed")
        if found.state in OWNED_JOB:
            raise RemovalRefused(f"the job is {found.state}; expected a paused or finished one")
        run_directory = run_directory_of(found, found.token + 1)
        if run_directory is not None and run_directory.has_directories():
            try:
                run_directory.take_over()
            except OSError as exc:
                raise RemovalRefused(f"its directory cannot be written: {exc.strerror}") from exc
        audit.record(job.id, audit.DELETE, by, "with its files" if with_files else "files kept")
        found.delete()
    logger.info(
        *("job %s: removed, its files %s", job.id, "deleted" if with_files else "kept"),
        extra={"event": "job_removed", "job": str(job.id)},
    )
    if run_directory is None:
        return True
    run_directory.remove_all()
    if with_files:
        shutil.rmtree(run_directory.directory, ignore_errors=True)
    return run_directory.directory.exists()
