"""The URLs of cacheapp, for `include("cacheapp.urls")`; those of downloads only if they are installed."""

from django.apps import apps
from django.urls import URLPattern, path

from cacheapp import api_views, converters, lab_views, watch_urls  # noqa: F401 (registers them)
from cacheapp.views import (
    cache,
    index,
    origin,
    page_data,
    pages_caches,
    pages_check,
    pages_machines,
    pages_stats,
    stats,
    worker,
)


def _of_downloads() -> list[URLPattern]:
    if not apps.is_installed("cacheapp.downloads"):
        return []
    from cacheapp.downloads.urls import urlpatterns as found  # noqa: PLC0415 (loads its models)

    return found


app_name = "cacheapp"

urlpatterns = [
    path("", pages_caches.front_page, name="index"),
    path("events", pages_caches.events, name="index_events"),
    path("lab/", lab_views.lab, name="lab_page"),
    path("lab/start", lab_views.start, name="lab_start"),
    path("lab/stop", lab_views.stop, name="lab_stop"),
    path("lab/drawing/<str:name>", lab_views.drawing, name="lab_drawing"),
    path("lab/<str:name>/", lab_views.experiment, name="lab_experiment"),
    path("check/", pages_check.check, name="check_page"),
    path("check/start", pages_check.start, name="check_start"),
    path("check/stop", pages_check.stop, name="check_stop"),
    path("check/drawing/<int:number>", pages_check.drawing, name="check_drawing"),
    path("machines/", pages_machines.view_machines, name="machines_page"),
    path("stats/", pages_stats.stats, name="stats_page"),
    *watch_urls.urlpatterns,
    path("api/", index.index, name="api"),
    path("api/openapi.json", api_views.openapi, name="openapi"),
    path("api/docs/", api_views.browse, name="api_docs"),
    path("api/worker", worker.worker, name="worker"),
    path("api/stats", stats.stats, name="stats"),
    path("api/overview", page_data.caches, name="overview"),
    path("api/machines", page_data.two_machines, name="machines_data"),
    path("api/check", page_data.check, name="check_data"),
    path("api/lab", lab_views.data, name="lab_data"),
    path("api/cache/<str:alias>", cache.alias, name="alias"),
    path("api/cache/<str:alias>/<str:key>/incr", cache.incr, name="incr"),
    path("api/cache/<str:alias>/<str:key>/add", cache.add, name="add"),
    path("api/cache/<str:alias>/<str:key>/touch", cache.touch, name="touch"),
    path("api/cache/<str:alias>/<cacheapp_any:key>", cache.key, name="key"),
    path("api/demo/file/<int:number>", origin.file, name="file"),
    *_of_downloads(),
    path("api/<cacheapp_any:rest>", index.not_found, name="not_found"),
]
