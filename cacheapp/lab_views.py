"""The lab as pages: the claims in one table, an experiment with its charts; run them, watch and stop them."""

import dataclasses
import json
from http import HTTPStatus
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.lab import charts, run_record
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.run import UnknownExperiment
from cacheapp.lab_context import (
    ended_context,
    legend,
    panel_context,
    row_context,
    running_context,
    tally_context,
)
from cacheapp.processes import background, exclusive_run
from cacheapp.processes.background import Busy
from cacheapp.views.access import permission_required
from cacheapp.views.page_data import store_errors
from cacheapp.views.pages import drawing_response, page, redirect_after_post, render_page
from cacheapp.views.responses import ApiError, allow_methods, json_response

_USUAL_MINUTES = 3
"""What all experiments take, before a run has shown it."""


@page("cacheapp.run_lab")
def lab(request: HttpRequest) -> HttpResponse:
    """Show all claims; htmx requests only the part that changes."""
    return _lab_page(request)


@page("cacheapp.run_lab")
def experiment(request: HttpRequest, name: str) -> HttpResponse:
    """Show one experiment: its claims with reasons, its charts, and the measured code."""
    return _experiment_page(request, _find(name))


@page("cacheapp.run_lab", "POST")
def start(request: HttpRequest) -> HttpResponse:
    """Start experiments in a process of their own; one runs at a time on a machine."""
    names, what = request.POST.getlist("name"), request.POST.get("do")
    if what not in {None, "all", "selected"} or (what is None and not names):
        found = f"do is {what!r}" if what is not None else "the form has neither do nor name"
        expected = "expected do=all; or do=selected, or no do, with the name of an experiment"
        return _refused(request, HTTPStatus.BAD_REQUEST, f"{found}; {expected}")
    if what == "selected" and not names:
        return _refused(request, HTTPStatus.UNPROCESSABLE_ENTITY, "No experiment is selected.")
    try:
        full = request.POST.get("full") == "1"
        run_record.start(*([] if what == "all" else names), full=full)
    except UnknownExperiment as exc:
        return _refused(request, HTTPStatus.BAD_REQUEST, str(exc))
    except Busy as exc:
        return _refused(request, HTTPStatus.CONFLICT, str(exc))
    return redirect_after_post(_page_of(request))


@page("cacheapp.run_lab", "POST")
def stop(request: HttpRequest) -> HttpResponse:
    """Cancel the current run; the results of completed experiments are kept."""
    background.stop()
    return redirect_after_post(_page_of(request))


@page("cacheapp.run_lab")
def drawing(request: HttpRequest, name: str) -> HttpResponse:
    """Return the charts of the latest result of an experiment, as an SVG file."""
    del request
    result = run_record.result(_find(name).name)
    if result is None or not result.panels:
        raise Http404(f"there is no drawing of {name!r}")
    return drawing_response(charts.alone(result))


@permission_required("cacheapp.run_lab")
@allow_methods("GET")
def data(request: HttpRequest) -> HttpResponseBase:
    """Return the claims and the last results as JSON; `?name=` only those of one experiment."""
    name = request.GET.get("name")
    if name is not None and name not in EXPERIMENTS:
        expected = ", ".join(EXPERIMENTS)
        raise ApiError(
            HTTPStatus.BAD_REQUEST, f"no experiment {name!r}; expected one of {expected}"
        )
    chosen = [one for one in EXPERIMENTS.values() if name in {None, one.name}]
    with store_errors():
        holder, status = exclusive_run.holder(), run_record.status()
        found = [_data(one) for one in chosen]
    return json_response(
        HTTPStatus.OK,
        running=holder.name if holder else None,
        last_run=dataclasses.asdict(status) if status else None,
        experiments=found,
    )


def _data(one: Experiment) -> dict[str, Any]:
    result = run_record.result(one.name)
    return {
        "name": one.name,
        "title": one.title,
        "claims": one.claims,
        "result": json.loads(result.to_json()) if result else None,
    }


def _find(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise Http404(f"no experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def _page_of(request: HttpRequest) -> str:
    """Return the page whose form was sent."""
    name = request.POST.get("page", "")
    if name in EXPERIMENTS:
        return reverse("cacheapp:lab_experiment", args=[name])
    return reverse("cacheapp:lab_page")


def _refused(request: HttpRequest, status: HTTPStatus, why: str) -> HttpResponse:
    """Show the page of the form again, with the reason and what was selected."""
    back = request.POST.get("page", "")
    if back in EXPERIMENTS:
        return _experiment_page(request, EXPERIMENTS[back], status=status, refused=why)
    return _lab_page(request, status=status, refused=why)


def _lab_page(request: HttpRequest, **more: Any) -> HttpResponse:
    results = {name: run_record.result(name) for name in EXPERIMENTS}
    running = running_context()
    rows = [row_context(one, results[one.name], running) for one in EXPERIMENTS.values()]
    took_s = [result.seconds for result in results.values() if result]
    is_known = len(took_s) == len(EXPERIMENTS)
    return render_page(
        request,
        "lab.html",
        part="parts/lab_claims.html",
        running=running,
        ended=ended_context(),
        rows=rows,
        **tally_context(rows),
        minutes=round(sum(took_s) / 60) or 1 if is_known else _USUAL_MINUTES,
        selected=request.POST.getlist("name"),
        where=reverse("cacheapp:lab_page"),
        **more,
    )


def _experiment_page(request: HttpRequest, one: Experiment, **more: Any) -> HttpResponse:
    result = run_record.result(one.name)
    running = running_context()
    return render_page(
        request,
        "lab_experiment.html",
        part="parts/lab_result.html",
        one=one,
        running=running,
        ended=ended_context(),
        row=row_context(one, result, running),
        result=result,
        panels=[panel_context(panel) for panel in result.panels] if result else [],
        legend=legend(result.panels) if result else [],
        where=reverse("cacheapp:lab_experiment", args=[one.name]),
        **more,
    )
