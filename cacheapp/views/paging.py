"""Split long lists into pages by a cursor, so that inserts and deletes neither repeat nor skip a row.

A page names the last row that it shows; the next page begins after that row.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.states import FileState, JobState
from cacheapp.typed_values import Reader, digits, one_of
from cacheapp.views.fields import read_query

DEFAULT_JOBS, MAX_JOBS = 20, 100
DEFAULT_FILES, MAX_FILES = 100, 1000

M = TypeVar("M", bound=Model)


def jobs_page(
    request: HttpRequest, visible: QuerySet[DownloadJob]
) -> tuple[list[DownloadJob], str | None]:
    """Return the newest jobs, after `?after=` and in `?state=`, and the URL of the next page."""
    query = read_query(request, _JOBS_QUERY)
    jobs = visible.order_by("-created_at", "-id")
    if "state" in query:
        jobs = jobs.filter(state=query["state"])
    if "after" in query:
        created_at, job_id = query["after"]
        older = Q(created_at__lt=created_at) | Q(created_at=created_at, id__lt=job_id)
        jobs = jobs.filter(older)
    limit = query.get("limit", DEFAULT_JOBS)
    return _page(request, jobs, limit, lambda job: f"{job.created_at.isoformat()}_{job.id}")


def files_page(request: HttpRequest, job: DownloadJob) -> tuple[list[DownloadFile], str | None]:
    """Return a job's files by position, after `?after=` and in `?state=`, and the URL of the next page."""
    query = read_query(request, _FILES_QUERY)
    files = job.files.filter(position__gt=query.get("after", -1)).order_by("position")
    if "state" in query:
        files = files.filter(state=query["state"])
    return _page(request, files, query.get("limit", DEFAULT_FILES), lambda it: str(it.position))


def _job_cursor(given: str) -> tuple[dt.datetime, UUID]:
    moment, _, job_id = given.partition("_")
    try:
        created_at = dt.datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError(moment)  # noqa: TRY301
        return created_at.astimezone(dt.UTC), UUID(job_id)
    except (ValueError, OverflowError):  # a time zone may lead out of all years
        raise ValueError("the value in `next` of a page") from None


_JOBS_QUERY: Mapping[str, Reader] = {
    "limit": digits(1, MAX_JOBS),
    "state": one_of(*JobState),
    "after": _job_cursor,
}
_FILES_QUERY: Mapping[str, Reader] = {
    "limit": digits(1, MAX_FILES),
    "state": one_of(*FileState),
    "after": digits(0, 2**31),
}


def _page(
    request: HttpRequest, rows: QuerySet[M], limit: int, place: Callable[[M], str]
) -> tuple[list[M], str | None]:
    """Return the first rows, and the URL of the next page if there are more."""
    found = list(rows[: limit + 1])
    if len(found) <= limit:
        return found, None
    found = found[:limit]
    query = {**request.GET.dict(), "after": place(found[-1])}
    return found, f"{request.path}?{urlencode(query)}"
