"""The front page: what every worker sees of every cache; JSON for clients that do not accept HTML."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo import overview, worker_agent
from cacheapp.demo.overview import AliasRow, Overview
from cacheapp.demo.verdict import WorkerView
from cacheapp.errors import StoreUnavailable
from cacheapp.views.index import index
from cacheapp.views.pages import error_page, page, render_page

_LOOKS = {  # CSS class, and a sign that does not depend on colour
    SharingVerdict.SHARED: ("good", "✓"),
    SharingVerdict.BROKEN: ("bad", "✕"),
    SharingVerdict.DOWN: ("warn", "!"),
    SharingVerdict.OPEN: ("", "·"),
}
_ACTIONS: dict[str, Callable[[], None]] = {
    "write": overview.write,
    "increment": overview.increment,
    "clear": overview.clear,
}


@csrf_exempt  # `caches` checks the token itself; `index` needs none
def front_page(request: HttpRequest) -> HttpResponseBase:
    """Return the page for browsers, and the index of the API for curl."""
    # Browsers accept text/html; htmx and curl accept anything.
    wants_html = "text/html" in request.headers.get("Accept", "") or "HX-Request" in request.headers
    response = caches(request) if wants_html or request.method == "POST" else index(request)
    patch_vary_headers(response, ["Accept", "HX-Request"])
    return response


@page("cacheapp.use_demo", "GET", "POST")
def caches(request: HttpRequest) -> HttpResponse:
    """Show all rows; POST: first run one action on all aliases."""
    try:
        worker_agent.start()
        if request.method == "POST":
            action = _ACTIONS.get(request.POST.get("do", ""))
            if action is None:
                wrong = f"do is {request.POST.get('do')!r}; expected one of {', '.join(_ACTIONS)}"
                return error_page(request, HTTPStatus.BAD_REQUEST, wrong)
            action()
            if request.headers.get("HX-Request") != "true":
                return HttpResponseRedirect(reverse("cacheapp:index"))
        seen = overview.read()
    except StoreUnavailable as exc:
        return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
    return render_page(request, "caches.html", part="parts/overview.html", **_page_context(seen))


def _page_context(seen: Overview) -> dict[str, Any]:
    rows = [_row_context(row) for row in seen.rows]
    announcement = ", ".join(f"{row['alias']} {row['verdict']}" for row in rows)
    return {
        "seen": seen,
        "rows": rows,
        "announcement": announcement,
        "increments": overview.INCREMENTS,
    }


def _row_context(row: AliasRow) -> dict[str, Any]:
    look, sign = _LOOKS[row.judged.verdict]
    label = "NOTHING YET" if row.judged.verdict is SharingVerdict.OPEN else row.judged.verdict.value
    return {
        "alias": row.alias,
        "backend": row.backend,
        "verdict": label,
        "look": look,
        "sign": sign,
        "why": row.judged.why,
        "cells": [_cell_context(row, one) for one in row.views],
        "advice": _advice(row) if row.judged.verdict is SharingVerdict.DOWN else "",
    }


def _cell_context(row: AliasRow, one: WorkerView) -> dict[str, Any]:
    """Return what a worker reads; `right` and `counts` are `None` if there is nothing to compare."""
    written, counted = row.changes.written, row.changes.counted
    return {
        "one": one,
        "right": one.value == written.value if written else None,
        "counts": one.count == counted.done if counted else None,
    }


def _advice(row: AliasRow) -> str:
    backend: Any = import_string(str(settings.CACHES[row.alias]["BACKEND"]))
    if any(
        kind.__name__ == "RedisCache" for kind in backend.__mro__
    ):  # Django's, django-redis's, ours
        return (
            "Start a Redis server and set REDIS_URL, or leave REDIS_URL unset: "
            "`make run` then starts a private server if redis-server is installed "
            "(Debian: apt install redis-server)."
        )
    return f"Check that CACHES[{row.alias!r}]['LOCATION'] exists and is reachable."
