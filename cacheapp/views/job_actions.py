"""What may be done with a job from any worker: pause, resume, cancel, try again, remove."""

from collections.abc import Callable
from http import HTTPStatus
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.downloads.jobs import deletion
from cacheapp.downloads.jobs.deletion import RemovalRefused
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import commands
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.views.access import permitted, require
from cacheapp.views.paging import one_of
from cacheapp.views.responses import BadRequest, allow_methods, answer
from cacheapp.views.serializers import job_shown

KEEP, REMOVE = "keep", "delete"
_CHANGE = "cacheapp.change_downloadjob"


def current(job_id: UUID) -> DownloadJob:
    """Return the job; raise `BadRequest` where there is none."""
    job = DownloadJob.objects.filter(id=job_id).first()
    if job is None:
        raise BadRequest(HTTPStatus.NOT_FOUND, f"no download has the id {job_id}")
    return job


def _asks(ask: Callable[[DownloadJob], bool]) -> Callable[..., HttpResponseBase]:
    """Return the view that asks this of a job."""

    @permitted(_CHANGE)
    @allow_methods("POST")
    def move(_request: HttpRequest, /, job_id: UUID) -> HttpResponseBase:
        return _asked(ask, current(job_id))

    return move


pause = _asks(commands.pause)
resume = _asks(commands.resume)
cancel = _asks(commands.cancel)
retry = _asks(commands.retry)


def delete(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Cancel a job, or, where `?files=` says what becomes of its files, remove it."""
    files = one_of(request, "files", [KEEP, REMOVE])
    if files is None:
        require(request, _CHANGE)
        return _asked(commands.cancel, current(job_id))
    require(request, "cacheapp.delete_downloadjob")
    job = current(job_id)
    try:
        left = deletion.remove(job, with_files=files == REMOVE)
    except RemovalRefused as exc:
        raise BadRequest(HTTPStatus.CONFLICT, str(exc), state=job.state) from exc
    return answer(HTTPStatus.OK, id=str(job_id), removed=True, files_left=left)


def _asked(ask: Callable[[DownloadJob], bool], job: DownloadJob) -> HttpResponseBase:
    """Answer 202, or 200 where it was so already: whoever has lost an answer may ask again."""
    try:
        news = ask(job)
    except InvalidTransition as exc:
        raise BadRequest(HTTPStatus.CONFLICT, str(exc), state=job.state) from exc
    except BrokerUnavailable as exc:
        raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, f"{exc}; ask again") from exc
    return answer(HTTPStatus.ACCEPTED if news else HTTPStatus.OK, **job_shown(job))
