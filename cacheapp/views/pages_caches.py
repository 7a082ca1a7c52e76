"""The front page: what every worker sees of every cache; JSON for clients that do not accept HTML."""

import datetime as dt
import logging
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo import overview, page_record, show, timeline, worker_agent
from cacheapp.demo.overview import AliasRow, Overview
from cacheapp.demo.show import AliasResult, ShowResult
from cacheapp.demo.timeline import Spot
from cacheapp.demo.verdict import ComparedView, judge_views
from cacheapp.errors import StoreUnavailable
from cacheapp.views.index import index
from cacheapp.views.pages import error_page, page, redirect_after_post, render_page
from cacheapp.views.streams import RETRY_AFTER_S, format_event, open_stream

logger = logging.getLogger(__name__)

_LOOKS = {  # CSS class, and a sign that does not depend on colour
    SharingVerdict.SHARED: ("good", "✓"),
    SharingVerdict.BROKEN: ("bad", "✕"),
    SharingVerdict.DOWN: ("warn", "!"),
    SharingVerdict.OPEN: ("", "·"),
}
_FRAME_S = 2.0
_ACTIONS: dict[str, Callable[[], object]] = {
    "show": show.run,
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
                return redirect_after_post(reverse("cacheapp:index"))
        seen = overview.read()
    except StoreUnavailable as exc:
        return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
    return render_page(request, "caches.html", part="parts/overview.html", **_page_context(seen))


@page("cacheapp.use_demo")
def events(request: HttpRequest) -> HttpResponseBase:
    """Send the part of the page that changes: every two seconds, and as soon as any worker changed something."""
    response = open_stream(request, OverviewEvents())
    if response is None:
        why = "All event streams of this worker are in use; the page requests its figures instead."
        response = error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, why)
        response["Retry-After"] = str(RETRY_AFTER_S)
    return response


class OverviewEvents:
    """The events of the front page: each has the HTML of the part that changes."""

    def __init__(self) -> None:
        self.is_finished = False
        self._changes: object = None
        self._sent_s = 0.0

    def new_events(self) -> str:
        """Return an event if something was changed since the last one, or that one is two seconds old."""
        now_s = clock.monotonic_s()
        try:
            changes = page_record.stamp(page_record.FILE, show.FILE)
            if changes == self._changes and now_s - self._sent_s < _FRAME_S:
                return ""
            worker_agent.start()
            context = {**_page_context(overview.read()), "answered_by": os.getpid()}
        except StoreUnavailable as exc:  # the page requests its figures, and shows the reason
            logger.warning("events of the front page ended early: %s", exc)
            self.is_finished = True
            return ": the demo is unavailable\n\n"
        self._changes, self._sent_s = changes, now_s
        html = render_to_string("cacheapp/parts/overview.html", context)
        return format_event("overview", {"html": html})


def _page_context(seen: Overview) -> dict[str, Any]:
    lanes = timeline.lanes(seen.marks, clock.wall_s())
    rows = [_row_context(row, lanes) for row in seen.rows]
    workers = conf().workers or len(seen.tiles)
    return {
        "seen": seen,
        "rows": rows,
        "announcement": ", ".join(f"{row['alias']} {row['verdict']}" for row in rows),
        "increments": overview.INCREMENTS,
        "workers": workers,
        "login_limit": show.LOGIN_LIMIT,
        "let_through": workers * show.LOGIN_LIMIT,
        "shown_s": round(timeline.SHOWN_S),
        "last": _last_context(show.latest()),
    }


def _last_context(result: ShowResult | None) -> dict[str, Any] | None:
    """Return the last run of Show me: its age, and what it says about each alias."""
    if result is None:
        return None
    lost = [one for one in result.results if one.lost and not one.error]
    return {
        "at": dt.datetime.fromtimestamp(result.at_s, dt.UTC),
        "results": [{"one": one, "look": _result_look(one)} for one in result.results],
        "lost": lost,
        "shared": [one for one in result.results if one.is_right],
        "failed": [one for one in result.results if one.error],
    }


def _result_look(one: AliasResult) -> tuple[str, str]:
    if one.error:
        return _LOOKS[SharingVerdict.DOWN]
    return _LOOKS[SharingVerdict.SHARED if one.is_right else SharingVerdict.BROKEN]


def _row_context(row: AliasRow, lanes: dict[tuple[str, int], list[Spot]]) -> dict[str, Any]:
    look, sign = _LOOKS[row.judged.verdict]
    compared = judge_views(row.changes, row.views)
    return {
        "alias": row.alias,
        "backend": row.backend,
        "verdict": _label(row, compared),
        "look": look,
        "sign": sign,
        "why": row.judged.why,
        "cells": [
            {"compared": one, "one": one.view, "spots": lanes.get((row.alias, one.view.pid), [])}
            for one in compared
        ],
        "advice": _advice(row) if row.judged.verdict is SharingVerdict.DOWN else "",
    }


def _label(row: AliasRow, compared: list[ComparedView]) -> str:
    """Return the verdict for people; the undecided ones differ by their reason."""
    if row.judged.verdict is not SharingVerdict.OPEN:
        return row.judged.verdict.value
    if not (row.changes.written or row.changes.counted):
        return "NOTHING YET"
    is_expired = any("expired" in {one.value, one.count} for one in compared)
    return "EXPIRED" if is_expired else "UNDECIDED"


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
