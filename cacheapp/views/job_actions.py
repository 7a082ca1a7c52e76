"""API views that change a job, from any worker: pause, resume, cancel, retry, remove."""

import functools
from collections.abc import Callable
from http import HTTPStatus
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.downloads.jobs import deletion
from cacheapp.downloads.jobs.deletion import RemovalRefused
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.runners import commands
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.typed_values import one_of
from cacheapp.views.access import check_permission, permission_required
from cacheapp.views.fields import read_query
from cacheapp.views.job_access import actor, get_job
from cacheapp.views.responses import ApiError, allow_methods, json_response
from cacheapp.views.serializers import serialize_job

KEEP, REMOVE = "keep", "delete"
_CHANGE = "cacheapp_downloads.change_downloadjob"


def _action_view(action: commands.Command) -> Callable[..., HttpResponseBase]:
    """Return the view that runs an action on a job."""

    @permission_required(_CHANGE)
    @allow_methods("POST")
    def view(request: HttpRequest, /, job_id: UUID) -> HttpResponseBase:
        return _run_action(request, action, get_job(request, job_id))

    return view


def _requeue_view(action: Callable[..., bool]) -> Callable[..., HttpResponseBase]:
    """Return the view that queues a job again; with `?verify=true`, after comparing its digests."""

    @permission_required(_CHANGE)
    @allow_methods("POST")
    def view(request: HttpRequest, /, job_id: UUID) -> HttpResponseBase:
        found = read_query(request, {"verify": one_of("true", "false")})
        verified = functools.partial(action, verify=found.get("verify") == "true")
        return _run_action(request, verified, get_job(request, job_id))

    return view


pause = _action_view(commands.pause)
resume = _requeue_view(commands.resume)
cancel = _action_view(commands.cancel)
retry = _requeue_view(commands.retry)


def delete(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Cancel a job; with `?files=keep` or `?files=delete`, remove it."""
    files = read_query(request, {"files": one_of(KEEP, REMOVE)}).get("files")
    if files is None:
        check_permission(request, _CHANGE)
        return _run_action(request, commands.cancel, get_job(request, job_id))
    check_permission(request, "cacheapp_downloads.delete_downloadjob")
    job = get_job(request, job_id)
    try:
        left = deletion.remove(job, with_files=files == REMOVE, by=actor(request))
    except RemovalRefused as exc:
        raise ApiError(HTTPStatus.CONFLICT, str(exc), state=job.state) from exc
    return json_response(HTTPStatus.OK, id=str(job_id), removed=True, files_left=left)


def _run_action(
    request: HttpRequest, action: commands.Command, job: DownloadJob
) -> HttpResponseBase:
    """Respond with 202, or 200 if nothing changed, so that a client may repeat a lost request."""
    try:
        changed = action(job, actor(request))
    except InvalidTransition as exc:
        raise ApiError(HTTPStatus.CONFLICT, str(exc), state=job.state) from exc
    except QuotaExceeded as exc:
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(exc), **exc.fields) from exc
    except BrokerUnavailable as exc:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"{exc}; try again") from exc
    status = HTTPStatus.ACCEPTED if changed else HTTPStatus.OK
    return json_response(status, **serialize_job(job, actor(request)))
