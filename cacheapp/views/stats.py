"""What was counted for each alias, and of downloads, over all processes of this machine."""

from http import HTTPStatus
from typing import Any

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
    """Answer with the counters of downloads, and of each alias that has some: the machine's sums."""
    found = {alias: caches[alias] for alias in aliases()}
    return json_response(
        HTTPStatus.OK,
        downloads=metrics.totals(),
        aliases={
            alias: _stats(cache) for alias, cache in found.items() if isinstance(cache, SharedCache)
        },
    )


def _stats(cache: SharedCache) -> dict[str, Any]:
    """Return the counters of an alias, or why they cannot be had: the others are told all the same."""
    try:
        return dict(cache.stats())
    except CacheappError as exc:
        return {"error": str(exc)}
