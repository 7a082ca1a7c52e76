"""Limits the unfinished jobs of a creator, and the files in them that are still to be fetched.

Invariant: no two orders pass a quota together, from any process. Each locks the creator's row
(`JobCreator`) by an UPDATE before it counts, and keeps the lock until its job is committed; SQLite
locks the whole database at that UPDATE. So orders of one creator are counted one after another.

Paused jobs count, or pausing would make room for more. While its source is listed, a job counts
with `DOWNLOAD_MAX_FILES`. Jobs without a creator have no quota.
"""

from typing import Any

from django.db.models import Case, Count, F, IntegerField, Sum, Value, When

from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadJob, JobCreator
from cacheapp.downloads.states import UNFINISHED_JOB
from cacheapp.errors import CacheappError


class QuotaExceeded(CacheappError):
    """The creator has too many unfinished jobs or files; nothing was changed."""

    def __init__(self, what: str, waiting: int, ordered: int, allowed: int) -> None:
        super().__init__(
            f"{waiting} {what} wait for this user and {ordered} were ordered; expected at most {allowed} "
            "together; wait for them, or cancel some"
        )
        self.fields: dict[str, Any] = {
            "quota": what,
            "waiting": waiting,
            "ordered": ordered,
            "allowed": allowed,
        }


def reserve(creator: str, files: int | None) -> None:
    """Lock a creator's quota for one more job until the transaction ends; or raise `QuotaExceeded`.

    `files`: to fetch in the job; `None`: its source is not listed yet. The caller opens the
    transaction.
    """
    if not creator:
        return
    _lock(creator)
    settings = conf()
    ordered = settings.download_max_files if files is None else files
    jobs, waiting = _waiting(creator)
    if jobs + 1 > settings.download_max_user_jobs:
        raise QuotaExceeded("jobs", jobs, 1, settings.download_max_user_jobs)
    if waiting + ordered > settings.download_max_user_files:
        raise QuotaExceeded("files", waiting, ordered, settings.download_max_user_files)


def _lock(creator: str) -> None:
    rows = JobCreator.objects.filter(key=creator)
    if not rows.update(orders=F("orders") + 1):
        JobCreator.objects.bulk_create([JobCreator(key=creator)], ignore_conflicts=True)
        rows.update(orders=F("orders") + 1)


def _waiting(creator: str) -> tuple[int, int]:
    """Return the unfinished jobs of a creator, and the files of them that are still to be fetched."""
    left = F("files_total") - F("files_done") - F("files_failed")
    unlisted = Value(conf().download_max_files)
    files = Case(When(listed_all=True, then=left), default=unlisted, output_field=IntegerField())
    jobs = DownloadJob.objects.filter(creator=creator, state__in=UNFINISHED_JOB)
    found = jobs.aggregate(jobs=Count("id"), files=Sum(files))
    return found["jobs"], found["files"] or 0
