"""The URLs of cacheapp, for `include("cacheapp.urls")`."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from cacheapp.extras import needed_for

with needed_for("cacheapp.urls", "pages"):
    from cacheapp import lab_views, watch_urls
    from cacheapp.views import (
        cache,
        downloads,
        events,
        index,
        job_actions,
        origin,
        pages_caches,
        pages_check,
        pages_downloads,
        pages_stats,
        stats,
        worker,
    )


class AnyText(StringConverter):
    """Match the rest of a URL, with slashes and line breaks, so that the 404 is in JSON."""

    regex = "(?s:.+)"


register_converter(AnyText, "cacheapp_any")

app_name = "cacheapp"

urlpatterns = [
    path("", pages_caches.front_page, name="index"),
    path("downloads/", pages_downloads.downloads, name="downloads_page"),
    path("downloads/<uuid:job_id>/", pages_downloads.download, name="download_page"),
    path("downloads/<uuid:job_id>/action", pages_downloads.job_action, name="download_action"),
    path("lab/", lab_views.lab, name="lab_page"),
    path("lab/start", lab_views.start, name="lab_start"),
    path("lab/stop", lab_views.stop, name="lab_stop"),
    path("lab/drawing/<str:name>", lab_views.drawing, name="lab_drawing"),
    path("check/", pages_check.check, name="check_page"),
    path("check/start", pages_check.start, name="check_start"),
    path("check/stop", pages_check.stop, name="check_stop"),
    path("check/drawing/<int:number>", pages_check.drawing, name="check_drawing"),
    path("stats/", pages_stats.stats, name="stats_page"),
    *watch_urls.urlpatterns,
    path("api/", index.index, name="api"),
    path("api/worker", worker.worker, name="worker"),
    path("api/stats", stats.stats, name="stats"),
    path("api/cache/<str:alias>", cache.alias, name="alias"),
    path("api/cache/<str:alias>/<str:key>/incr", cache.incr, name="incr"),
    path("api/cache/<str:alias>/<str:key>/add", cache.add, name="add"),
    path("api/cache/<str:alias>/<str:key>/touch", cache.touch, name="touch"),
    path("api/cache/<str:alias>/<cacheapp_any:key>", cache.key, name="key"),
    path("api/downloads", downloads.downloads, name="downloads"),
    path("api/downloads/<uuid:job_id>", downloads.download, name="download"),
    path("api/downloads/<uuid:job_id>/files", downloads.files, name="download_files"),
    path("api/downloads/<uuid:job_id>/events", events.events, name="download_events"),
    path("api/downloads/<uuid:job_id>/pause", job_actions.pause, name="download_pause"),
    path("api/downloads/<uuid:job_id>/resume", job_actions.resume, name="download_resume"),
    path("api/downloads/<uuid:job_id>/cancel", job_actions.cancel, name="download_cancel"),
    path("api/downloads/<uuid:job_id>/retry", job_actions.retry, name="download_retry"),
    path("api/demo/file/<int:number>", origin.file, name="file"),
    path("api/<cacheapp_any:rest>", index.not_found, name="not_found"),
]
