"""The counters of each alias and of downloads, summed over all processes of this machine."""

from http import HTTPStatus
from typing import Any

from django.apps import apps
from django.core.cache import caches
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.backends.core.shared import SharedCache
from cacheapp.demo.namespace import aliases
from cacheapp.downloads.runners import metrics
from cacheapp.errors import CacheappError
from cacheapp.views.access import permission_required
from cacheapp.views.responses import allow_methods, json_response


@permission_required("cacheapp.view_stats")
@allow_methods("GET")
def stats(_request: HttpRequest) -> HttpResponseBase:
    """Return the counters of each alias that has any, and of downloads if they are installed."""
    found = {alias: caches[alias] for alias in aliases()}
    fields: dict[str, Any] = {
        "aliases": {
            alias: _stats(cache) for alias, cache in found.items() if isinstance(cache, SharedCache)
        }
    }
    if apps.is_installed("cacheapp.downloads"):
        fields["downloads"] = metrics.totals()
    return json_response(HTTPStatus.OK, **fields)


def _stats(cache: SharedCache) -> dict[str, Any]:
    """Return the counters of an alias, or its error, which does not affect other aliases."""
    try:
        return dict(cache.stats())
    except CacheappError as exc:
        return {"error": str(exc)}
