"""The statistics page: counters of each alias, summed and per worker."""

from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.demo import stats_ring, worker_agent, worker_rpc
from cacheapp.demo.namespace import aliases
from cacheapp.demo.stats_ring import Sample
from cacheapp.errors import CacheappError
from cacheapp.views.pages import page, render_page
from cacheapp.views.stats_charts import draw_charts

_REPLY_TIMEOUT_S = 2.0


@page("cacheapp.view_stats")
def stats(request: HttpRequest) -> HttpResponse:
    """Show a card per alias: the sums of this machine, and the counters of each worker."""
    by_worker = _counts_by_worker()
    samples = _samples()
    cards = [_card_context(alias, by_worker, samples) for alias in aliases()]
    announcement = f"{len(by_worker)} workers"
    return render_page(
        request, "stats.html", part="parts/stats.html", cards=cards, announcement=announcement
    )


def _counts_by_worker() -> dict[int, dict[str, dict[str, int]]]:
    """Return the counters of each worker by alias, without workers that do not respond."""
    try:
        worker_agent.start()
    except CacheappError:  # no directory for the sockets: the sums are still available
        return {}
    replies = worker_rpc.call(
        [(worker, {"do": "stats"}) for worker in worker_rpc.workers()], _REPLY_TIMEOUT_S
    )
    return {reply.worker.pid: reply.body["counts"] for reply in replies if reply.body}


def _samples() -> list[Sample]:
    """Return the samples of the last 15 minutes; none if their directory cannot be used."""
    try:
        return stats_ring.samples()
    except CacheappError:
        return []


def _card_context(
    alias: str, by_worker: dict[int, dict[str, dict[str, int]]], samples: list[Sample]
) -> dict[str, Any]:
    cache = caches[alias]
    card: dict[str, Any] = {"alias": alias, "backend": settings.CACHES[alias]["BACKEND"]}
    if not isinstance(cache, SharedCache):
        return {**card, "silent": "This backend has no counters."}
    try:
        total = cache.stats()
    except CacheappError as exc:
        return {**card, "silent": str(exc)}
    lines = [_line_context(str(pid), counts.get(alias, {})) for pid, counts in by_worker.items()]
    card["charts"] = draw_charts(samples, alias, clock.wall_s(), stats_ring.SHOWN_S)
    return {**card, "total": _line_context("all", total), "held": total, "lines": lines}


def _line_context(who: str, counts: dict[str, int]) -> dict[str, Any]:
    """Return the figures of one worker, or of all; the rate is `None` without reads."""
    asked = counts.get("hits", 0) + counts.get("misses", 0)
    runs = counts.get("factory_runs", 0)
    return {
        "who": who,
        **counts,
        "rate": round(100 * counts["hits"] / asked, 1) if asked else None,
        "factory_mean_s": counts["factory_us"] / 1e6 / runs if runs else None,
        "errors": counts.get("errors_raised", 0) + counts.get("errors_swallowed", 0),
        "breaker": "open" if counts.get("breaker_open_now") else "closed",
    }
