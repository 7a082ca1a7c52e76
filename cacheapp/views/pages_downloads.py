"""The list of downloads: filter, search and sort it, act on several jobs, and create one."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.jobs.titles import titles_of
from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.states import JobState
from cacheapp.views.after_redirect import keep_report, kept_report, remove_report
from cacheapp.views.downloads import create_job, own_origins
from cacheapp.views.job_access import actor, visible_jobs
from cacheapp.views.job_context import job_context
from cacheapp.views.navigation import may_open
from cacheapp.views.pages import error_page, page, redirect_after_post, render_page
from cacheapp.views.pages_job import ACTIONS
from cacheapp.views.responses import ApiError

JOBS_PER_PAGE = 15
_EXAMPLE_FILES = 40
_MAX_DIGITS = 6
_MAX_SEARCH = 200
_SORTS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "newest": ("Newest first", ("-created_at", "id")),
    "oldest": ("Oldest first", ("created_at", "id")),
    "files": ("Most files first", ("-files_total", "-created_at", "id")),
    "bytes": ("Most bytes first", ("-bytes_done", "-created_at", "id")),
    "failed": ("Most failed files first", ("-files_failed", "-created_at", "id")),
}
_QUERY = ("q", "state", "sort", "page")
_EMPTY_FORM = {"urls": "", "threads": "8", "title": ""}
_PAST = {
    "pause": "Pause requested for",
    "resume": "Resumed",
    "cancel": "Cancelled",
    "retry": "Retried",
}


@page("cacheapp_downloads.view_downloadjob", POST="cacheapp_downloads.add_downloadjob")
def downloads(request: HttpRequest) -> HttpResponse:
    """Show the jobs and a form for a new one; POST: create it."""
    form = {**_EMPTY_FORM, "urls": _example_urls(request) if "example" in request.GET else ""}
    problems: list[str] = []
    status = HTTPStatus.OK
    if request.method == "POST":
        form = {name: request.POST.get(name, "") for name in form}
        try:
            job = _create_job(request, form)
            return redirect_after_post(reverse("cacheapp:download_page", args=[job.id]))
        except ApiError as exc:
            problems = [_problem_text(one) for one in exc.extra.get("problems", [])] or [str(exc)]
            is_bad = exc.status is HTTPStatus.BAD_REQUEST
            status = HTTPStatus.UNPROCESSABLE_ENTITY if is_bad else exc.status
    if request.headers.get("HX-Request") == "true" or request.method == "POST":
        return _list_page(request, status, form=form, problems=problems)
    report = kept_report(request)
    response = _list_page(request, status, form=form, problems=problems, report=report)
    if report is not None:
        remove_report(response)
    return response


@page("cacheapp_downloads.change_downloadjob", "POST")
def bulk_action(request: HttpRequest) -> HttpResponse:
    """Run one action on the selected jobs; report how many it changed, and why not the others."""
    do = request.POST.get("do", "")
    if do not in ACTIONS:
        wrong = f"do is {do!r}; expected one of {', '.join(ACTIONS)}"
        return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
    ids = [found for one in request.POST.getlist("job")[:JOBS_PER_PAGE] if (found := _uuid(one))]
    if not ids:
        return error_page(request, HTTPStatus.UNPROCESSABLE_ENTITY, "No job is selected.", "")
    done, refused = 0, []
    for job in visible_jobs(request).filter(id__in=ids):
        try:
            ACTIONS[do](job, actor(request))
            done += 1
        except (InvalidTransition, QuotaExceeded, BrokerUnavailable) as exc:
            refused.append(f"{str(job.id)[:8]}: {exc}")
    report: dict[str, Any] = {
        "done": f"{_PAST[do]} {done} of {len(ids)} jobs.",
        "refused": refused,
    }
    if request.headers.get("HX-Request") == "true":
        response = render_page(request, "downloads.html", part="parts/report.html", report=report)
        response["HX-Trigger"] = "jobs-changed"
        return response
    back = redirect_after_post(_list_url(request))
    keep_report(request, back, report["done"], refused)
    return back


def _list_url(request: HttpRequest) -> str:
    """Return the list as it was when the form was sent, with its filter and page."""
    known = {name: request.GET[name] for name in _QUERY if request.GET.get(name)}
    place = reverse("cacheapp:downloads_page")
    return f"{place}?{urlencode(known)}" if known else place


def _list_page(request: HttpRequest, status: HTTPStatus, **context: Any) -> HttpResponse:
    query = _query(request)
    found = _matching(visible_jobs(request), query, actor(request).key).order_by(
        *_SORTS[query["sort"]][1]
    )
    jobs = Paginator(found, JOBS_PER_PAGE).get_page(request.GET.get("page"))
    titles = titles_of(jobs)
    chosen = {name: value for name, value in query.items() if value and value != "newest"}
    also = f"&{urlencode(chosen)}" if chosen else ""
    return render_page(
        request,
        "downloads.html",
        status=status,
        part="parts/jobs.html",
        jobs=jobs,
        shown=[job_context(job, titles[job.id]) for job in jobs],
        query=query,
        is_filtered=bool(chosen),
        also=also,
        here=f"?page={jobs.number}{also}",
        states=[state.value for state in JobState],
        sorts=[(name, title) for name, (title, _) in _SORTS.items()],
        off=conf().download_root is None,
        may_order=may_open(request, "cacheapp_downloads.add_downloadjob"),
        may_act=may_open(request, "cacheapp_downloads.change_downloadjob"),
        demo=conf().demo,
        max_threads=conf().download_max_threads,
        max_title=MAX_TITLE_CHARS,
        **context,
    )


def _query(request: HttpRequest) -> dict[str, str]:
    """Return the filter of the list; unknown values are as if they were not given."""
    state, sort = request.GET.get("state", ""), request.GET.get("sort", "")
    return {
        "q": request.GET.get("q", "").strip()[:_MAX_SEARCH].replace("\0", ""),
        "state": state if state in set(JobState) else "",
        "sort": sort if sort in _SORTS else "newest",
    }


def _matching(
    jobs: QuerySet[DownloadJob], query: dict[str, str], creator: str
) -> QuerySet[DownloadJob]:
    """Return the jobs that match. `creator`: the caller, of whose jobs alone the sources are searched.

    A source may have secrets that managers do not see, and a search would confirm a guess.
    """
    if query["state"]:
        jobs = jobs.filter(state=query["state"])
    if words := query["q"]:
        of_file = DownloadFile.objects.filter(job=OuterRef("pk"), name__icontains=words)
        found = Q(title__icontains=words) | Q(created_by__icontains=words) | Q(Exists(of_file))
        if creator:
            found |= Q(creator=creator, source__icontains=words)
        if digits := _hexadecimal(words):
            found |= Q(id__gte=UUID(digits.ljust(32, "0")), id__lte=UUID(digits.ljust(32, "f")))
        jobs = jobs.filter(found)
    return jobs


def _hexadecimal(words: str) -> str:
    """Return the digits if the words may be the beginning of an id."""
    digits = words.replace("-", "").lower()
    is_one = len(digits) in range(4, 33) and set(digits) <= set("0123456789abcdef")
    return digits if is_one else ""


def _uuid(given: str) -> UUID | None:
    try:
        return UUID(given)
    except ValueError:
        return None


def _create_job(request: HttpRequest, form: dict[str, str]) -> DownloadJob:
    """Create the job in the form; raise `ApiError` with all problems."""
    digits = form["threads"].strip()
    body = {
        "urls": [line.strip() for line in form["urls"].splitlines() if line.strip()],
        "threads": int(digits) if digits.isdecimal() and len(digits) <= _MAX_DIGITS else digits,
        "title": form["title"],
    }
    return create_job(request, body)[0]


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
