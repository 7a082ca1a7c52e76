"""The page of two machines with a copy each: write on one, and see when the other one has the new value."""

import datetime as dt
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from cacheapp.demo import machines
from cacheapp.demo.machines import ObservedWrite, Propagation
from cacheapp.demo.page_record import RecordDamaged
from cacheapp.errors import CacheappError
from cacheapp.views.pages import error_page, page, redirect_after_post, render_page

_WIDTH = 560  # of a lane, in the units of the drawing
_LEAST_MS = 4.0


@page("cacheapp.use_demo", "GET", "POST")
def view_machines(request: HttpRequest) -> HttpResponse:
    """Show both machines; POST: first write on one of them."""
    alias = machines.source()
    if request.method == "POST" and alias is not None:
        writer = request.POST.get("on", "")
        if writer not in machines.NAMES:
            wrong = f"on is {writer!r}; expected one of {', '.join(machines.NAMES)}"
            return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
        try:
            machines.write(alias, writer)
        except CacheappError as exc:
            return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
        if request.headers.get("HX-Request") != "true":
            return redirect_after_post(reverse("cacheapp:machines_page"))
    context = {} if alias is None else {**_now(alias), **_last()}
    return render_page(
        request,
        "machines.html",
        part="parts/machines.html",
        alias=alias,
        bound_s=machines.BOUND_S,
        names=machines.NAMES,
        **context,
    )


def _now(alias: str) -> dict[str, Any]:
    try:
        return {"snapshot": machines.read(alias)}
    except CacheappError as exc:
        return {"down": str(exc)}


def _last() -> dict[str, Any]:
    try:
        observed = machines.last_write()
    except RecordDamaged as exc:
        return {"damaged": str(exc)}
    return {"last": _drawn(observed) if observed else None}


def _drawn(observed: ObservedWrite) -> dict[str, Any]:
    """Return the last write as a drawing: for each machine, how long the old value was read."""
    slowest_ms = max((one.delay_ms or 0.0 for one in observed.propagations), default=0.0)
    shown_ms = max(_LEAST_MS, 1.5 * slowest_ms)
    return {
        "observed": observed,
        "at": dt.datetime.fromtimestamp(observed.at_s, dt.UTC),
        "lanes": [_lane(one, shown_ms) for one in observed.propagations],
        "shown_ms": shown_ms,
        "width": _WIDTH,
    }


def _lane(one: Propagation, shown_ms: float) -> dict[str, Any]:
    old = _WIDTH if one.delay_ms is None else round(_WIDTH * one.delay_ms / shown_ms)
    if one.delay_ms is not None and not one.old_reads:
        old = 0  # the duration of its first read is no time with the old value
    return {"of": one, "old": old, "new": _WIDTH - old}
