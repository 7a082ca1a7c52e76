"""The page of one download: its figures, its files, its history; the actions on it; and its complete files."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, reverse

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.jobs.repository import destination_of
from cacheapp.downloads.jobs.titles import titles_of
from cacheapp.downloads.runners import commands, live_progress
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.states import FINISHED_JOB, FileState, JobState
from cacheapp.views import file_map
from cacheapp.views.file_responses import file_response, zip_response
from cacheapp.views.job_access import actor, get_job
from cacheapp.views.job_context import job_context
from cacheapp.views.job_history import history_of
from cacheapp.views.navigation import may_open
from cacheapp.views.pages import error_page, page, redirect_after_post, render_page
from cacheapp.views.responses import ApiError
from cacheapp.views.serializers import serialize_webhook
from cacheapp.views.sparkline import draw_area

_Active = dict[str, tuple[int, int | None]]  # names of files, each with its bytes: done, of all

_VIEW, _CHANGE = "cacheapp_downloads.view_downloadjob", "cacheapp_downloads.change_downloadjob"
FILES_PER_PAGE = 25
_MAP_FILES = 200_000
_FAILED_SHOWN = 10
_LEAST_RATES_S = 30.0
_BUTTONS = (
    {"do": "pause", "title": "Pause", "look": ""},
    {"do": "resume", "title": "Resume", "look": "first"},
    {"do": "retry", "title": "Retry", "look": "first"},
    {"do": "cancel", "title": "Cancel", "look": "danger"},
)
ACTIONS: dict[str, commands.Command] = {
    "pause": commands.pause,
    "resume": commands.resume,
    "cancel": commands.cancel,
    "retry": commands.retry,
}


@page("cacheapp_downloads.view_downloadjob")
def download(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Show one job: its figures, what moves, what failed, and its files in pages."""
    job = _get_job_or_404(request, job_id)
    progress = live_progress.read(job.id) if job.state == JobState.RUNNING else None
    active = _active_files(progress)
    current_url = request.get_full_path()
    if request.headers.get("HX-Request") == "true":  # a part: nothing is read for the others
        part, context = "parts/job.html", _figures_context(job, active)
        if request.headers.get("HX-Target") == "files":
            part, context = "parts/job_files.html", _files_context(request, job, active)
        context |= {"job": _context_of(request, job, "", progress), "current_url": current_url}
        return render_page(request, "download.html", part=part, **context)
    return render_page(
        request,
        "download.html",
        job=_context_of(request, job, titles_of([job])[job.id], progress),
        buttons=_BUTTONS,
        current_url=current_url,
        destination=_shown_destination(job),
        admin_url=_admin_url(request, job),
        **_figures_context(job, active),
        **_files_context(request, job, active),
        **_map_context(job),
        **_failed_context(job),
    )


@page("cacheapp_downloads.view_downloadjob")
def file_states(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Return the map of all files, which is requested less often than the figures."""
    job = _get_job_or_404(request, job_id)
    context = {"job": _context_of(request, job), **_map_context(job)}
    return render_page(request, "file_map.html", part="parts/file_map.html", **context)


@page("cacheapp_downloads.view_downloadjob")
def failed_files(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Return the failed files with their reasons, for the job's page when the job has ended."""
    job = _get_job_or_404(request, job_id)
    context = {"job": _context_of(request, job), **_failed_context(job)}
    return render_page(request, "failed_files.html", part="parts/failed_files.html", **context)


@page(_CHANGE, "POST")
def job_action(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Pause, resume, cancel or retry a job, or retry one of its files; then redirect to it."""
    job = _get_job_or_404(request, job_id)
    action = ACTIONS.get(request.POST.get("do", ""))
    if action is None:
        wrong = f"do is {request.POST.get('do')!r}; expected one of {', '.join(ACTIONS)}"
        return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
    position = request.POST.get("file", "")
    try:
        if position and action is commands.retry:
            number = (
                int(position) if position.isdecimal() and len(position) <= len("99999999") else -1
            )
            commands.retry_file(job, number, actor(request))
        else:
            action(job, actor(request))
    except InvalidTransition as exc:
        return error_page(request, HTTPStatus.CONFLICT, str(exc))
    except QuotaExceeded as exc:
        return error_page(request, HTTPStatus.TOO_MANY_REQUESTS, str(exc))
    except BrokerUnavailable as exc:
        return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
    if request.headers.get("HX-Request") == "true":
        # The page requests its own figures: this view does not know its filter.
        return HttpResponse(status=HTTPStatus.NO_CONTENT, headers={"HX-Trigger": "job-changed"})
    return redirect_after_post(reverse("cacheapp:download_page", args=[job.id]))


@page("cacheapp_downloads.view_downloadjob")
def file(request: HttpRequest, job_id: UUID, position: int) -> HttpResponseBase:
    """Send a complete file of a finished job."""
    job = _finished_job_or_404(request, job_id)
    row = job.files.filter(position=position, state=FileState.SUCCEEDED).first()
    if row is None:
        raise Http404(f"the job has no complete file {position}")
    etag = row.sha256 or f"{job.id}-{position}-{row.generation}"
    return file_response(request, destination_of(job, conf().download_root), row.name, etag)


@page("cacheapp_downloads.view_downloadjob")
def all_files(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Send all complete files of a finished job as a zip."""
    job = _finished_job_or_404(request, job_id)
    rows = job.files.filter(state=FileState.SUCCEEDED).order_by("position")
    names = list(rows.values_list("name", flat=True))
    directory = destination_of(job, conf().download_root)
    return zip_response(request, directory, names, f"download-{str(job.id)[:8]}.zip")


def _context_of(
    request: HttpRequest,
    job: DownloadJob,
    title: str = "",
    progress: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the job for the templates, with the actions that its state and the permissions allow."""
    found = job_context(job, title, progress)
    return found if may_open(request, _CHANGE) else {**found, "can": []}


def _get_job_or_404(request: HttpRequest, job_id: UUID) -> DownloadJob:
    try:
        return get_job(request, job_id)
    except ApiError as exc:
        raise Http404(str(exc)) from exc


def _finished_job_or_404(request: HttpRequest, job_id: UUID) -> DownloadJob:
    job = _get_job_or_404(request, job_id)
    if JobState(job.state) not in FINISHED_JOB:
        raise Http404("the job has not ended; its files can be fetched then")
    if conf().download_root is None and not job.destination:
        raise Http404(
            "CACHEAPP['DOWNLOAD_ROOT'] is not set, so the directory of the job is unknown"
        )
    return job


def _shown_destination(job: DownloadJob) -> str:
    """Return the directory of the files on the server; empty if it is not known."""
    root = conf().download_root
    return "" if root is None and not job.destination else str(destination_of(job, root))


def _admin_url(request: HttpRequest, job: DownloadJob) -> str:
    """Return the job's page in Django's admin, for users who may open it."""
    user: Any = getattr(request, "user", None)
    # A project's own model of users need not have this attribute, which the admin requires.
    if not (getattr(user, "is_staff", False) and user.has_perm(_VIEW)):
        return ""
    try:
        return reverse("admin:cacheapp_downloads_downloadjob_change", args=[job.id])
    except NoReverseMatch:
        return ""


def _rate_context(job: DownloadJob) -> dict[str, Any]:
    """Return the throughput of the last 10 minutes, or before the job's end; shorter if that is all."""
    rates = live_progress.rates_of(job.id)
    is_over = rates and JobState(job.state) in FINISHED_JOB
    now_s = rates[-1][0] if is_over else clock.wall_s()
    known_s = now_s - rates[0][0] if rates else 0.0
    shown_s = min(max(known_s, _LEAST_RATES_S), live_progress.RATES_S)
    is_all = shown_s == live_progress.RATES_S
    return {
        "rate_path": draw_area(rates, now_s, shown_s),
        "rate_s": None if is_all else shown_s,
    }


def _figures_context(job: DownloadJob, active: _Active) -> dict[str, Any]:
    return {
        "webhook": serialize_webhook(job),
        "moving": [_moving_context(*one) for one in active.items()],
        **_rate_context(job),
        "history": history_of(job),
        "announcement": f"{job.state}, {job.files_done} of {job.files_total} files",
    }


def _files_context(request: HttpRequest, job: DownloadJob, active: _Active) -> dict[str, Any]:
    """Return a page of the files, those of one state if the request says so."""
    state_filter = request.GET.get("files", "")
    found = job.files.order_by("position")
    if state_filter in set(FileState):
        found = found.filter(state=state_filter)
    files = Paginator(found, FILES_PER_PAGE).get_page(request.GET.get("page"))
    rows = [_file_context(job, row, active) for row in files]
    return {"files": files, "rows": rows, "state_filter": state_filter, "tabs": _tabs(job)}


def _map_context(job: DownloadJob) -> dict[str, Any]:
    if not 1 < job.files_total <= _MAP_FILES:
        return {"map": None}
    states = job.files.order_by("position").values_list("state", flat=True)
    return {"map": file_map.draw_map(list(states)), "is_large": job.files_total > 1000}  # noqa: PLR2004


def _failed_context(job: DownloadJob) -> dict[str, Any]:
    if not job.files_failed:
        return {"failed": []}
    rows = job.files.filter(state=FileState.FAILED).order_by("position")
    return {"failed": list(rows[:_FAILED_SHOWN]), "failed_more": job.files_failed - _FAILED_SHOWN}


def _tabs(job: DownloadJob) -> list[dict[str, Any]]:
    """Return the filters by state, each with its count; without empty ones."""
    found = job.files.values("state").annotate(count=Count("id"))
    counts = {one["state"]: one["count"] for one in found}
    return [
        {"state": state.value, "title": _word(job, state.value), "count": counts[state.value]}
        for state in FileState
        if counts.get(state.value)
    ]


def _word(job: DownloadJob, state: str) -> str:
    """Return the state of a file for people: in a paused job nothing waits for a worker."""
    is_paused = job.state == JobState.PAUSED and state == FileState.QUEUED
    return JobState.PAUSED.value if is_paused else state


def _active_files(progress: dict[str, Any] | None) -> _Active:
    return {
        one["name"]: (one["bytes_done"], one["bytes_total"])
        for one in (progress or {}).get("moving", [])
    }


def _moving_context(name: str, size: tuple[int, int | None]) -> dict[str, Any]:
    done, total = size
    return {"name": name, "done": done, "total": total}


def _file_context(job: DownloadJob, row: DownloadFile, active: _Active) -> dict[str, Any]:
    """Return a file's bar: its progress from the cache, or else from the database."""
    done, total = row.bytes_done, row.expected_size
    state = FileState(row.state)
    if state in {FileState.QUEUED, FileState.RUNNING} and row.name in active:
        done, total = active[row.name]
        state = FileState.RUNNING
    if state is FileState.SUCCEEDED:
        total = done
    look = {FileState.SUCCEEDED: "good", FileState.FAILED: "bad"}.get(state, "")
    return {
        "row": row,
        "state": _word(job, state.value),
        "look": look,
        "done": done,
        "total": total,
        "full": state is FileState.SUCCEEDED,
        "max": total or max(done, 1),
    }
