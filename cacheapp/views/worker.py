"""The API endpoint that identifies the worker."""

import threading
from http import HTTPStatus

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp import clock
from cacheapp.views.access import permission_required
from cacheapp.views.responses import allow_methods, json_response


@permission_required("cacheapp.use_demo")
@allow_methods("GET")
def worker(_request: HttpRequest) -> HttpResponseBase:
    """Return the worker's `pid`, its number of live `threads`, and its `uptime_s`."""
    return json_response(
        HTTPStatus.OK,
        threads=threading.active_count(),
        uptime_s=round(clock.uptime_s(), 3),
    )
