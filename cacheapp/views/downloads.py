"""Downloads over HTTP: order one, watch it, cancel it; any worker answers."""

import datetime as dt
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.conf import conf
from cacheapp.downloads import ledger, live
from cacheapp.downloads.host import existing_host, host
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.order import Order, OrderRefused, read_order
from cacheapp.downloads.states import FileState, JobState
from cacheapp.views.access import permitted
from cacheapp.views.answers import BadRequest, allow_methods, answer, read_json

BODY_LIMIT_BYTES = 2 * 2**20
MAX_ERRORS = 100
DEFAULT_LISTED = 20
MAX_LISTED = 100


@permitted("cacheapp.view_downloadjob", POST="cacheapp.add_downloadjob")
@allow_methods("GET", "POST")
def downloads(request: HttpRequest) -> HttpResponseBase:
    """POST: start a download; GET: list the newest jobs."""
    return _order(request) if request.method == "POST" else _list(request)


@permitted("cacheapp.view_downloadjob", DELETE="cacheapp.change_downloadjob")
@allow_methods("GET", "DELETE")
def download(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """GET: where a job is; DELETE: cancel it."""
    job = _current(job_id)
    if request.method == "DELETE":
        return _cancel(job)
    running = job.state == JobState.RUNNING
    return answer(
        HTTPStatus.OK, **_shown(job), live=live.seen(job.id) if running else None, **_errors(job)
    )


def _order(request: HttpRequest) -> HttpResponseBase:
    if conf().download_root is None:
        message = "downloads are off: CACHEAPP['DOWNLOAD_ROOT'] says where they would arrive"
        raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, message)
    order = _read_order(request)
    runner = host()
    job = ledger.create(order, runner.owner)
    transaction.on_commit(runner.wake)  # at once, unless the project wraps requests
    return answer(
        HTTPStatus.ACCEPTED,
        {"Location": reverse("cacheapp:download", args=[job.id])},
        **_shown(job),
    )


def _read_order(request: HttpRequest) -> Order:
    settings = conf()
    try:
        return read_order(
            read_json(request, BODY_LIMIT_BYTES),
            origins=frozenset(settings.download_origins),
            extra_origins=own_origins(request),
            max_files=settings.download_max_files,
            max_threads=settings.download_max_threads,
        )
    except OrderRefused as exc:
        raise BadRequest(
            HTTPStatus.BAD_REQUEST,
            str(exc),
            problems=exc.problems,
            problems_total=exc.problems_total,
        ) from exc


def own_origins(request: HttpRequest) -> frozenset[str]:
    """Return this server's own origin while the demo is on, so that one curl is enough to try it.

    The port is the one that this server listens on, never the one in the Host header: whoever
    asks could name any port of this machine there.
    """
    if not conf().demo or request.scheme != "http":
        return frozenset()
    port = request.META["SERVER_PORT"]
    return frozenset(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))


def _list(request: HttpRequest) -> HttpResponseBase:
    given = request.GET.get("limit", str(DEFAULT_LISTED))
    digits = given.isascii() and given.isdigit() and len(given) <= len(str(MAX_LISTED))
    if not digits or not 1 <= int(given) <= MAX_LISTED:
        message = f"limit is {given[:20]!r}; expected a whole number from 1 to {MAX_LISTED}"
        raise BadRequest(HTTPStatus.BAD_REQUEST, message)
    jobs = DownloadJob.objects.order_by("-created_at", "id")[: int(given)]
    return answer(HTTPStatus.OK, jobs=[_shown(_settled(job)) for job in jobs])


def _cancel(job: DownloadJob) -> HttpResponseBase:
    if ledger.ask_cancel(job.id):
        if (runner := existing_host()) is not None and job.owner == runner.owner.token:
            runner.wake()  # other owners see it when they next write progress
        job.refresh_from_db()
        return answer(HTTPStatus.ACCEPTED, **_shown(job))
    job.refresh_from_db()
    if job.state == JobState.CANCELLED:  # what was asked for is so: DELETE may be repeated
        return answer(HTTPStatus.OK, **_shown(job))
    message = f"the job has {job.state} already; only queued and running ones can be cancelled"
    raise BadRequest(HTTPStatus.CONFLICT, message, state=job.state)


def _current(job_id: UUID) -> DownloadJob:
    job = DownloadJob.objects.filter(id=job_id).first()
    if job is None:
        raise BadRequest(HTTPStatus.NOT_FOUND, f"no download has the id {job_id}")
    return _settled(job)


def _settled(job: DownloadJob) -> DownloadJob:
    """Return the job, ended if its owner is gone: it must not look as if it still ran."""
    if ledger.is_orphan(job):
        silent = f"no sign of life for {conf().download_heartbeat_s:g} s"
        ledger.end_early(job, f"its worker {job.owner_pid} ended or hangs: {silent}")
        job.refresh_from_db()
    return job


def _shown(job: DownloadJob) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "state": job.state,
        "error": job.error,
        "cancel_asked": job.cancel_asked,
        "threads": job.threads,
        "files_total": job.files_total,
        "files_done": job.files_done,
        "files_failed": job.files_failed,
        "bytes_done": job.bytes_done,
        "owner_pid": job.owner_pid,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "heartbeat_at": _time(job.heartbeat_at),
        "finished_at": _time(job.finished_at),
    }


def _errors(job: DownloadJob) -> dict[str, Any]:
    failed = job.files.filter(state=FileState.FAILED).order_by("position")[:MAX_ERRORS]
    errors = list(failed.values("url", "name", "error"))
    return {"errors": errors, "errors_left_out": max(0, job.files_failed - len(errors))}


def _time(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
