"""The front page: what every worker sees of every cache, now; JSON for whoever did not ask for HTML."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.cache.backends.redis import RedisCache
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt
from django_redis.cache import RedisCache as DjangoRedisCache

from cacheapp.backends import RedisCache as OurRedisCache
from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo import overview, worker_agent
from cacheapp.demo.overview import AliasRow, Overview
from cacheapp.demo.verdict import WorkerView
from cacheapp.errors import StoreUnavailable
from cacheapp.views.index import index
from cacheapp.views.pages import error_page, page, render_page

_LOOKS = {  # a class of the stylesheet, and a sign for those who do not see its colour
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


@csrf_exempt  # `caches` asks for the token, `index` for what stands in for it
def front_page(request: HttpRequest) -> HttpResponseBase:
    """Answer with the page for browsers, and with the index of the API for `curl`."""
    # A browser asks for text/html; htmx, like curl, for anything.
    asked = "text/html" in request.headers.get("Accept", "") or "HX-Request" in request.headers
    response = caches(request) if asked or request.method == "POST" else index(request)
    patch_vary_headers(response, ["Accept", "HX-Request"])
    return response


@page("cacheapp.use_demo")
def caches(request: HttpRequest) -> HttpResponse:
    """Show all rows; POST: do one thing to all aliases first."""
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
    """Return what a worker reads; `right` and `counts` are `None` where nothing was asked for."""
    written, counted = row.changes.written, row.changes.counted
    return {
        "one": one,
        "right": one.value == written.value if written else None,
        "counts": one.count == counted.done if counted else None,
    }


def _advice(row: AliasRow) -> str:
    backend: Any = import_string(str(settings.CACHES[row.alias]["BACKEND"]))
    if issubclass(backend, OurRedisCache | DjangoRedisCache | RedisCache):
        return (
            "Start a Redis server and name it in REDIS_URL, or leave REDIS_URL unset: "
            "`make run` then starts a private one where redis-server is installed "
            "(Debian: apt install redis-server)."
        )
    return f"See that what CACHES[{row.alias!r}]['LOCATION'] names is there and can be reached."
