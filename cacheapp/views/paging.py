"""Long lists in pages: each names the place after which the next one begins, never a number of rows.

So no row is shown twice or left out because others came or went meanwhile.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.views.responses import ApiError

M = TypeVar("M", bound=Model)


def query_int(request: HttpRequest, name: str, default: int, lowest: int, highest: int) -> int:
    """Return a number of the query; raise `ApiError` for what is none."""
    given = request.GET.get(name, str(default))
    # Digits are counted first: int() of a megabyte of them takes its time.
    digits = given.isascii() and given.isdigit() and len(given) <= len(str(highest))
    if not digits or not lowest <= int(given) <= highest:
        expected = f"expected a whole number from {lowest} to {highest}"
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{name} is {given[:20]!r}; {expected}")
    return int(given)


def query_choice(request: HttpRequest, name: str, choices: Iterable[str]) -> str | None:
    """Return a word of the query, or `None` where it is not there; raise `ApiError`."""
    given = request.GET.get(name)
    known = [str(choice) for choice in choices]
    if given is not None and given not in known:
        message = f"{name} is {given[:20]!r}; expected one of {', '.join(known)}"
        raise ApiError(HTTPStatus.BAD_REQUEST, message)
    return given


def jobs_page(
    request: HttpRequest, limit: int, state: str | None
) -> tuple[list[DownloadJob], str | None]:
    """Return the newest jobs behind `?after=`, and where the next page is."""
    jobs = DownloadJob.objects.order_by("-created_at", "-id")
    if state is not None:
        jobs = jobs.filter(state=state)
    if (given := request.GET.get("after")) is not None:
        created_at, job_id = _parse_cursor(given)
        older = Q(created_at__lt=created_at) | Q(created_at=created_at, id__lt=job_id)
        jobs = jobs.filter(older)
    return _page(request, jobs, limit, lambda job: f"{job.created_at.isoformat()}_{job.id}")


def files_page(
    request: HttpRequest, job: DownloadJob, limit: int, state: str | None
) -> tuple[list[DownloadFile], str | None]:
    """Return the files of a job behind `?after=`, by their place in the order."""
    after = query_int(request, "after", 0, 0, 2**31) if "after" in request.GET else -1
    files = job.files.filter(position__gt=after).order_by("position")
    if state is not None:
        files = files.filter(state=state)
    return _page(request, files, limit, lambda file: str(file.position))


def _page(
    request: HttpRequest, rows: QuerySet[M], limit: int, place: Callable[[M], str]
) -> tuple[list[M], str | None]:
    """Return so many rows, and the address of those behind them, if there are any."""
    found = list(rows[: limit + 1])
    if len(found) <= limit:
        return found, None
    found = found[:limit]
    query = {**request.GET.dict(), "after": place(found[-1])}
    return found, f"{request.path}?{urlencode(query)}"


def _parse_cursor(given: str) -> tuple[dt.datetime, UUID]:
    moment, _, job_id = given.partition("_")
    try:
        created_at = dt.datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError(moment)  # noqa: TRY301
        return created_at.astimezone(dt.UTC), UUID(job_id)
    except (ValueError, OverflowError) as exc:  # a zone may lead out of all years
        message = f"after is {given[:20]!r}; expected what `next` of a page says"
        raise ApiError(HTTPStatus.BAD_REQUEST, message) from exc
