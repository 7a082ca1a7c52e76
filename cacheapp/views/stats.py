"""What was counted for each alias, over all processes of this host."""

from http import HTTPStatus

from django.core.cache import caches
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.backends.shared import SharedCache
from cacheapp.lab.namespace import aliases
from cacheapp.views.access import permitted
from cacheapp.views.answers import allow_methods, answer


@permitted("cacheapp.view_stats")
@allow_methods("GET")
def stats(_request: HttpRequest) -> HttpResponseBase:
    """Answer with the counters of each alias that has some; any worker gives the host's sum."""
    found = {alias: caches[alias] for alias in aliases()}
    return answer(
        HTTPStatus.OK,
        aliases={
            alias: cache.stats() for alias, cache in found.items() if isinstance(cache, SharedCache)
        },
    )
