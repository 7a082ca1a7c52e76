"""The downloads API: create a job, and read jobs and their files, from any worker."""

import re
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.conf import conf
from cacheapp.downloads.jobs.actors import is_creator
from cacheapp.downloads.jobs.idempotency import KeyReused
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.orders import DownloadsDisabled, place_order
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.sources.request import RequestRefused
from cacheapp.views import job_actions
from cacheapp.views.access import permission_required
from cacheapp.views.job_access import actor, get_job, visible_jobs
from cacheapp.views.local_access import is_local
from cacheapp.views.paging import files_page, jobs_page
from cacheapp.views.responses import ApiError, allow_methods, json_response, read_json
from cacheapp.views.serializers import serialize_file, serialize_job, serialize_job_detail

BODY_LIMIT_BYTES = 2 * 2**20
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


@permission_required(
    "cacheapp_downloads.view_downloadjob", POST="cacheapp_downloads.add_downloadjob"
)
@allow_methods("GET", "POST")
def downloads(request: HttpRequest) -> HttpResponseBase:
    """POST: start a download; GET: list the newest jobs."""
    return _create(request) if request.method == "POST" else _list(request)


@permission_required("cacheapp_downloads.view_downloadjob")
@allow_methods("GET", "DELETE")
def download(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """GET: the state of a job; DELETE: cancel it, or with `?files=` remove it."""
    if request.method == "DELETE":
        return job_actions.delete(request, job_id)
    job = get_job(request, job_id)
    return json_response(HTTPStatus.OK, **serialize_job_detail(job, actor(request)))


@permission_required("cacheapp_downloads.view_downloadjob")
@allow_methods("GET")
def files(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """List a job's files in order; `?state=` filters by state."""
    job = get_job(request, job_id)
    found, after = files_page(request, job)
    whole = is_creator(actor(request), job)
    shown = [serialize_file(file, whole=whole) for file in found]
    return json_response(HTTPStatus.OK, files=shown, next=after)


def _list(request: HttpRequest) -> HttpResponseBase:
    found, after = jobs_page(request, visible_jobs(request))
    viewer = actor(request)
    shown = [serialize_job(job, viewer) for job in found]
    return json_response(HTTPStatus.OK, jobs=shown, next=after)


def _create(request: HttpRequest) -> HttpResponseBase:
    job, made = create_job(request, read_json(request, BODY_LIMIT_BYTES))
    url = reverse("cacheapp:download", args=[job.id])
    status = HTTPStatus.ACCEPTED if made else HTTPStatus.OK
    return json_response(status, {"Location": url}, **serialize_job(job, actor(request)))


def create_job(request: HttpRequest, body: dict[str, Any]) -> tuple[DownloadJob, bool]:
    """Create the job that a body describes and start it; return it, and whether it is new.

    Raises `ApiError` with all problems; nothing was started then.
    """
    key = _idempotency_key(request)
    try:
        return place_order(body, actor(request), key, own_origins(request))
    except RequestRefused as exc:
        found: dict[str, Any] = {"problems": exc.problems, "problems_total": exc.problems_total}
        raise ApiError(HTTPStatus.BAD_REQUEST, str(exc), **found) from exc
    except KeyReused as exc:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"Idempotency-Key: {exc}") from exc
    except QuotaExceeded as exc:
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(exc), **exc.fields) from exc
    except (BrokerUnavailable, DownloadsDisabled) as exc:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(exc)) from exc


def _idempotency_key(request: HttpRequest) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        expected = "expected 1 to 255 visible ASCII characters"
        raise ApiError(HTTPStatus.BAD_REQUEST, f"Idempotency-Key is {key[:40]!r}; {expected}")
    return key


def own_origins(request: HttpRequest) -> frozenset[str]:
    """Return this server's own origins while the demo is on, so that one curl command can try it.

    Only for local callers: a request of this server to itself comes from this machine, so a remote
    caller could use it to read what the demo shows only to local programs.

    The port is the one that this server listens on. The Host header could name any port of this
    machine.
    """
    if not conf().demo or request.scheme != "http" or not is_local(request):
        return frozenset()
    port = request.META["SERVER_PORT"]
    return frozenset(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
