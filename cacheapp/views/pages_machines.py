"""The page of two machines with a copy each: write on one, and see when the other turned."""

import datetime as dt
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from cacheapp.demo import machines
from cacheapp.demo.machines import Turn, Watch
from cacheapp.errors import CacheappError
from cacheapp.views.pages import error_page, page, render_page

_WIDTH = 560  # of a lane, in the units of the drawing
_LEAST_MS = 4.0


@page("cacheapp.use_demo", "GET", "POST")
def view_machines(request: HttpRequest) -> HttpResponse:
    """Show both machines; POST: first write on one of them."""
    alias = machines.source()
    context: dict[str, Any] = {"alias": alias, "bound_s": machines.BOUND_S, "names": machines.NAMES}
    if alias is None:
        return render_page(request, "machines.html", part="parts/machines.html", **context)
    try:
        if request.method == "POST":
            writer = request.POST.get("on", "")
            if writer not in machines.NAMES:
                wrong = f"on is {writer!r}; expected one of {', '.join(machines.NAMES)}"
                return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
            machines.write(alias, writer)
            if request.headers.get("HX-Request") != "true":
                return HttpResponseRedirect(reverse("cacheapp:machines_page"))
    except CacheappError as exc:
        return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
    try:
        seen = machines.look(alias)
        context |= {"seen": seen, "last": _drawn(seen.last) if seen.last else None}
    except CacheappError as exc:
        context["down"] = str(exc)
    return render_page(request, "machines.html", part="parts/machines.html", **context)


def _drawn(watch: Watch) -> dict[str, Any]:
    """Return the last write as a drawing: for each machine, how long the old value was read."""
    slowest_ms = max((turn.turned_ms or 0.0 for turn in watch.turns), default=0.0)
    shown_ms = max(_LEAST_MS, 1.5 * slowest_ms)
    return {
        "watch": watch,
        "at": dt.datetime.fromtimestamp(watch.at_s, dt.UTC),
        "lanes": [_lane(turn, shown_ms) for turn in watch.turns],
        "shown_ms": shown_ms,
        "width": _WIDTH,
    }


def _lane(turn: Turn, shown_ms: float) -> dict[str, Any]:
    turned = _WIDTH if turn.turned_ms is None else round(_WIDTH * turn.turned_ms / shown_ms)
    return {"turn": turn, "old": turned, "new": _WIDTH - turned}
