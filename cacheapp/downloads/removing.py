"""Removes a job that nobody runs, with or without its files.

The rows go first: a job that is there has its files. Who is killed in between leaves a directory
that no job names. Nobody can take the job up meanwhile, because taking it locks the same row.
"""

import logging
import shutil

from django.db import transaction

from cacheapp.conf import conf
from cacheapp.downloads.ledger import directory_of
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.partial import remove_partials
from cacheapp.downloads.states import OWNED_JOB
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


class NotRemoved(CacheappError):
    """The job is still there, with all its files; the message says why."""


def remove(job: DownloadJob, *, with_files: bool) -> bool:
    """Remove a job; return whether files of it are left. Partial files always go.

    Raise `NotRemoved` for a job that somebody runs, and for files in a directory that holds others
    too.
    """
    if with_files and job.destination:
        raise NotRemoved(f"its files lie in {job.destination} among others; only keep can be asked")
    with transaction.atomic():
        found = DownloadJob.objects.select_for_update().filter(id=job.id).first()
        if found is None:
            raise NotRemoved("somebody else has removed it")
        if found.state in OWNED_JOB:
            raise NotRemoved(f"the job is {found.state}; expected one that is paused or has ended")
        found.delete()
    root = conf().download_root
    logger.info(
        *("job %s: removed, files %s", job.id, "too" if with_files else "kept"),
        extra={"event": "job_removed", "job": str(job.id)},
    )
    if root is None or job.destination:
        return True
    directory = directory_of(job.id, root)
    if not directory.is_dir():
        return False
    if with_files:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        remove_partials(directory)
    return directory.exists()
