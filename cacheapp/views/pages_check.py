"""`cachecheck` as a page: the form, the progress, the table of results, and the counterexamples."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.urls import reverse

from cacheapp import clock
from cacheapp.cachecheck import run_record
from cacheapp.cachecheck.verdicts import PropertyVerdict
from cacheapp.demo.namespace import aliases
from cacheapp.processes import background, exclusive_run
from cacheapp.processes.background import Busy
from cacheapp.processes.run_record import RunState
from cacheapp.views.pages import (
    drawing_response,
    page,
    redirect_after_post,
    refresh_when_done,
    render_page,
)

SECONDS = (0.5, 2.0, 5.0)
_FIELDS = ("alias", "seconds", "private", "what")
LOOKS = {
    PropertyVerdict.HOLDS: ("good", "✓"),
    PropertyVerdict.BROKEN: ("bad", "✕"),
    PropertyVerdict.UNKNOWN: ("warn", "?"),
    PropertyVerdict.NOT_APPLICABLE: ("", "·"),
}


@page("cacheapp.run_check")
def check(request: HttpRequest) -> HttpResponse:
    """Show the results of the last check; htmx requests only the progress of the current one."""
    running = _running()
    if request.headers.get("HX-Request") == "true":
        response = render_page(request, "check.html", part="parts/running.html", running=running)
        return refresh_when_done(request, response, is_over=running is None)
    choices = _choices(request.GET) if "seconds" in request.GET else _default_choices()
    return _check_page(request, HTTPStatus.OK, choices, {})


@page("cacheapp.run_check", "POST")
def start(request: HttpRequest) -> HttpResponse:
    """Start a check in its own process; one check or experiment runs at a time on a machine."""
    choices = _choices(request.POST)
    seconds = {f"{one:g}": one for one in SECONDS}.get(choices["seconds"])
    mistakes = _mistakes(choices)
    if mistakes or seconds is None:
        return _check_page(request, HTTPStatus.BAD_REQUEST, choices, mistakes)
    try:
        run_record.start(
            choices["aliases"], seconds, private=choices["private"], quick=choices["quick"]
        )
    except Busy as exc:
        return _check_page(request, HTTPStatus.CONFLICT, choices, {"form": str(exc)})
    return redirect_after_post(_page_url(request.POST))


def _page_url(form: QueryDict) -> str:
    """Return the page with these choices in its form."""
    kept = {name: form.getlist(name) for name in _FIELDS if name in form}
    query = f"?{urlencode(kept, doseq=True)}" if kept else ""
    return f"{reverse('cacheapp:check_page')}{query}"


def _check_page(
    request: HttpRequest, status: HTTPStatus, choices: dict[str, Any], mistakes: dict[str, str]
) -> HttpResponse:
    last = run_record.status()
    return render_page(
        request,
        "check.html",
        status=status,
        running=_running(),
        ended=last if last and last.state not in {RunState.RUNNING, RunState.DONE} else None,
        aliases=aliases(),
        seconds=[f"{one:g}" for one in SECONDS],
        choices=choices,
        mistakes=mistakes,
        found=_results_context(run_record.report() or {}),
    )


def _default_choices() -> dict[str, Any]:
    return {"aliases": aliases(), "seconds": "2", "private": True, "quick": True}


def _choices(form: QueryDict) -> dict[str, Any]:
    """Return what the form has selected, which the page shows again."""
    return {
        "aliases": form.getlist("alias"),
        "seconds": form.get("seconds", ""),
        "private": form.get("private") == "1",
        "quick": form.get("what") != "all",
    }


def _mistakes(choices: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong, by field."""
    wrong = {}
    unknown = [f"no alias {one[:40]!r}" for one in choices["aliases"] if one not in settings.CACHES]
    if unknown or not choices["aliases"]:
        wrong["aliases"] = "; ".join(unknown) or "no alias selected"
    expected = [f"{one:g}" for one in SECONDS]
    if choices["seconds"] not in expected:
        wrong["seconds"] = f"seconds: expected one of {', '.join(expected)}"
    return wrong


@page("cacheapp.run_check", "POST")
def stop(request: HttpRequest) -> HttpResponse:
    """Stop the current check; its results so far, and the choices in the form, are kept."""
    background.stop()
    return redirect_after_post(_page_url(request.GET))


@page("cacheapp.run_check")
def drawing(request: HttpRequest, number: int) -> HttpResponse:
    """Return the timeline of a counterexample of the last check, as SVG."""
    del request
    drawn = (run_record.report() or {}).get("drawings", [])
    if number >= len(drawn):
        raise Http404(f"the last check has {len(drawn)} drawings")
    return drawing_response(drawn[number]["svg"])


def _running() -> dict[str, Any] | None:
    """Return the check or experiment that runs on this machine, or `None`."""
    holder = exclusive_run.holder()
    if holder is None:
        return None
    status = run_record.status()
    own = status if status and status.pid == holder.pid else None
    return {
        "name": holder.name,
        "step": f"{own.alias}: {own.doing}" if own and own.doing else "starting",
        "done": own.done if own else 0,
        "total": own.total if own else 1,
        "for_s": clock.wall_s() - own.began_s if own else None,
        "where": reverse("cacheapp:check_page"),
        "stop": reverse("cacheapp:check_stop") if holder.stoppable else "",
    }


def _results_context(report: dict[str, Any]) -> dict[str, Any]:
    """Return the table (a row per property, a cell per alias) and the proofs."""
    reports = report.get("aliases", [])
    cells = {
        (own["alias"], one["property"]): {**one, "look": LOOKS[PropertyVerdict(one["verdict"])]}
        for own in reports
        for one in own["findings"]
    }
    names = [own["alias"] for own in reports]
    properties = dict.fromkeys(name for _, name in cells)
    drawn = {
        (one["alias"], one["property"]): {**one, "number": number}
        for number, one in enumerate(report.get("drawings", []))
    }
    return {
        "about": {key: report.get(key) for key in ("date", "python", "machine")},
        "aliases": names,
        "rows": [(name, [cells.get((alias, name)) for alias in names]) for name in properties],
        "proofs": [
            {"alias": alias, "cell": cell, "drawing": drawn.get((alias, name))}
            for (alias, name), cell in cells.items()
            if cell["why"] and cell["verdict"] in {PropertyVerdict.BROKEN, PropertyVerdict.UNKNOWN}
        ],
    }
