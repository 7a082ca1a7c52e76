"""Downloads as pages: create a job, list all, and watch and control one with a bar per file."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core.paginator import Page, Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cacheapp.conf import conf
from cacheapp.downloads.jobs import audit, ownership
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.runners import commands, live_progress
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.states import OWNED_JOB, FileState, JobState
from cacheapp.views.downloads import create_job, own_origins
from cacheapp.views.job_access import actor, get_job, visible_jobs
from cacheapp.views.pages import error_page, page, render_page
from cacheapp.views.responses import ApiError
from cacheapp.views.serializers import serialize_webhook

JOBS_PER_PAGE = 15
FILES_PER_PAGE = 25
_ACTIONS_SHOWN = 20
_EXAMPLE_FILES = 40
_MAX_DIGITS = 6
_LOOKS = {
    JobState.QUEUED: "",
    JobState.RUNNING: "busy",
    JobState.PAUSED: "warn",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.CANCELLED: "warn",
}
_BUTTONS = (
    {"do": "pause", "title": "Pause", "look": ""},
    {"do": "resume", "title": "Resume", "look": "first"},
    {"do": "retry", "title": "Retry", "look": "first"},
    {"do": "cancel", "title": "Cancel", "look": "danger"},
)
_RETRYABLE = (JobState.FAILED, JobState.CANCELLED)


@page("cacheapp_downloads.view_downloadjob", POST="cacheapp_downloads.add_downloadjob")
def downloads(request: HttpRequest) -> HttpResponse:
    """Show the newest jobs and a form for a new one; POST: create it."""
    form = {"urls": _example_urls(request) if "example" in request.GET else "", "threads": "8"}
    problems: list[str] = []
    status = HTTPStatus.OK
    if request.method == "POST":
        form = {name: request.POST.get(name, "") for name in form}
        try:
            return HttpResponseRedirect(_job_url(_create_job(request, form)))
        except ApiError as exc:
            problems = [_problem_text(one) for one in exc.extra.get("problems", [])] or [str(exc)]
            is_bad = exc.status is HTTPStatus.BAD_REQUEST
            status = HTTPStatus.UNPROCESSABLE_ENTITY if is_bad else exc.status
    found = visible_jobs(request).order_by("-created_at", "id")
    jobs = _page(found, request, JOBS_PER_PAGE)
    return render_page(
        request,
        "downloads.html",
        status=status,
        part="parts/jobs.html",
        jobs=jobs,
        shown=[_job_context(job) for job in jobs],
        form=form,
        problems=problems,
        off=conf().download_root is None,
        demo=conf().demo,
        max_threads=conf().download_max_threads,
    )


@page("cacheapp_downloads.view_downloadjob")
def download(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Show one job: its figures, and its files in pages."""
    job = _get_job_or_404(request, job_id)
    state_filter = request.GET.get("files", "")
    found = job.files.order_by("position")
    if state_filter in set(FileState):
        found = found.filter(state=state_filter)
    files = _page(found, request, FILES_PER_PAGE)
    progress = live_progress.read(job.id) if job.state == JobState.RUNNING else None
    return render_page(
        request,
        "download.html",
        part="parts/job.html",
        job=_job_context(job, progress),
        webhook=serialize_webhook(job),
        files=files,
        rows=[_file_context(row, _active_files(progress)) for row in files],
        actions=audit.entries_of(job)[:_ACTIONS_SHOWN],
        state_filter=state_filter,
        states=[state.value for state in FileState],
        buttons=_BUTTONS,
        current_url=request.get_full_path(),
        announcement=f"{job.state}, {job.files_done} of {job.files_total} files",
    )


@page("cacheapp_downloads.change_downloadjob", "POST")
def job_action(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Pause, resume, cancel or retry a job, then redirect to it."""
    job = _get_job_or_404(request, job_id)
    action = _ACTIONS.get(request.POST.get("do", ""))
    if action is None:
        wrong = f"do is {request.POST.get('do')!r}; expected one of {', '.join(_ACTIONS)}"
        return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
    try:
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
    return HttpResponseRedirect(_job_url(job))


def _create_job(request: HttpRequest, form: dict[str, str]) -> DownloadJob:
    """Create the job in the form; raise `ApiError` with all problems."""
    digits = form["threads"].strip()
    body = {
        "urls": [line.strip() for line in form["urls"].splitlines() if line.strip()],
        "threads": int(digits) if digits.isdecimal() and len(digits) <= _MAX_DIGITS else digits,
    }
    return create_job(request, body)[0]


_ACTIONS: dict[str, commands.Command] = {
    "pause": commands.pause,
    "resume": commands.resume,
    "cancel": commands.cancel,
    "retry": commands.retry,
}


def _get_job_or_404(request: HttpRequest, job_id: UUID) -> DownloadJob:
    try:
        return get_job(request, job_id)
    except ApiError as exc:
        raise Http404(str(exc)) from exc


def _job_url(job: DownloadJob) -> str:
    return reverse("cacheapp:download_page", args=[job.id])


def _page(found: Any, request: HttpRequest, size: int) -> Page[Any]:
    return Paginator(found, size).get_page(request.GET.get("page"))


def _example_urls(request: HttpRequest) -> str:
    """Return URLs of this server's demo files, slow enough to watch the progress."""
    origin = min(own_origins(request), default="")
    lines = [
        f"{origin}/api/demo/file/{number}?bytes={2**17 * (1 + number % 5)}&delay_ms=1500"
        for number in range(1, _EXAMPLE_FILES + 1)
    ]
    return "\n".join(lines) if origin else ""


def _problem_text(problem: dict[str, Any]) -> str:
    what = problem.get("url") or problem["field"]
    return f"{what}: {problem['error']}"


def _job_context(job: DownloadJob, progress: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a job for the templates."""
    if progress is None and job.state == JobState.RUNNING:
        progress = live_progress.read(job.id)
    rate = (progress or {}).get("rate_bps")
    state = JobState(job.state)
    return {
        "row": job,
        "url": _job_url(job),
        "short": str(job.id)[:8],
        "look": _LOOKS[state],
        "live": state in OWNED_JOB,
        "rate_bps": rate,
        "left_s": (progress or {}).get("eta_s"),
        "retries": (progress or {}).get("retries", 0),
        "silent": ownership.is_orphan(job),
        "can": [name for name, possible in _possible_actions(job).items() if possible],
    }


def _possible_actions(job: DownloadJob) -> dict[str, bool]:
    state = JobState(job.state)
    is_owned = state in OWNED_JOB
    return {
        "pause": is_owned and not (job.pause_requested or job.cancel_requested),
        "resume": state is JobState.PAUSED and not job.fingerprint,
        "retry": state in _RETRYABLE and not job.fingerprint,
        "cancel": (is_owned or state is JobState.PAUSED) and not job.cancel_requested,
    }


def _active_files(progress: dict[str, Any] | None) -> dict[str, tuple[int, int | None]]:
    return {
        one["name"]: (one["bytes_done"], one["bytes_total"])
        for one in (progress or {}).get("moving", [])
    }


def _file_context(row: DownloadFile, active: dict[str, tuple[int, int | None]]) -> dict[str, Any]:
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
        "state": state.value,
        "look": look,
        "done": done,
        "total": total,
        "full": state is FileState.SUCCEEDED,
        "max": total or max(done, 1),
    }
