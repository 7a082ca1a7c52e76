"""The lab as a page: start, watch and stop an experiment; show the latest results."""

from http import HTTPStatus
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cacheapp import clock
from cacheapp.lab import run_record
from cacheapp.lab.charts import alone
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimVerdict
from cacheapp.lab.run import UnknownExperiment
from cacheapp.processes import background, exclusive_run
from cacheapp.processes.background import Busy
from cacheapp.processes.run_record import RunState
from cacheapp.views.pages import drawing_response, error_page, page, refresh_when_done, render_page

LOOKS = {
    ClaimVerdict.HOLDS: ("good", "✓"),
    ClaimVerdict.DOES_NOT_HOLD: ("bad", "✕"),
    ClaimVerdict.UNKNOWN: ("warn", "?"),
}


@page("cacheapp.run_lab")
def lab(request: HttpRequest) -> HttpResponse:
    """Show all experiments; htmx requests only the progress of the current one."""
    running = _running()
    if request.headers.get("HX-Request") == "true":
        response = render_page(request, "lab.html", part="parts/running.html", running=running)
        return refresh_when_done(request, response, is_over=running is None)
    cards = [_card(one) for one in EXPERIMENTS.values()]
    return render_page(request, "lab.html", running=running, cards=cards, ended=_ended())


@page("cacheapp.run_lab", "POST")
def start(request: HttpRequest) -> HttpResponse:
    """Start an experiment in its own process; one runs at a time on a machine."""
    try:
        run_record.start(request.POST.get("name", ""), full=request.POST.get("full") == "1")
    except UnknownExperiment as exc:
        return error_page(request, HTTPStatus.BAD_REQUEST, str(exc))
    except Busy as exc:
        return error_page(request, HTTPStatus.CONFLICT, str(exc))
    return HttpResponseRedirect(reverse("cacheapp:lab_page"))


@page("cacheapp.run_lab", "POST")
def stop(request: HttpRequest) -> HttpResponse:
    """Stop the current experiment."""
    del request
    background.stop()
    return HttpResponseRedirect(reverse("cacheapp:lab_page"))


@page("cacheapp.run_lab")
def drawing(request: HttpRequest, name: str) -> HttpResponse:
    """Return the chart of the latest result of an experiment, as SVG."""
    del request
    found = run_record.drawing(name) if name in EXPERIMENTS else None
    if found is None:
        raise Http404(f"there is no drawing of {name!r}")
    return drawing_response(alone(found))


def _running() -> dict[str, Any] | None:
    """Return the experiment or check that runs on this machine, or `None`."""
    holder = exclusive_run.holder()
    if holder is None:
        return None
    status = run_record.status()
    own = status if status and status.pid == holder.pid else None
    now = own.progress if own else None
    return {
        "name": now.name if now else holder.name,
        "step": now.step if now else "starting",
        "done": now.done if now else 0,
        "total": max(now.total, 1) if now else 1,
        "for_s": clock.wall_s() - own.began_s if own else None,
        "where": reverse("cacheapp:lab_page"),
        "stop": reverse("cacheapp:lab_stop") if holder.stoppable else "",
    }


def _ended() -> dict[str, str] | None:
    """Return how the last run ended, unless it completed."""
    status = run_record.status()
    if status is None or status.state in {RunState.RUNNING, RunState.DONE}:
        return None
    words = {
        RunState.STOPPED: "was stopped",
        RunState.FAILED: "failed",
        RunState.LOST: "was killed without a report",
    }
    return {"names": ", ".join(status.names), "how": words[status.state], "error": status.error}


def _card(one: Experiment) -> dict[str, Any]:
    result = run_record.result(one.name)
    return {
        "one": one,
        "result": result,
        "look": LOOKS[result.verdict] if result else ("", ""),
        "findings": [(found, LOOKS[found.verdict]) for found in result.findings] if result else [],
        "has_drawing": result is not None and run_record.drawing(one.name) is not None,
    }
