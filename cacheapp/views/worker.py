"""Which worker answers, and since when it does."""

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
    """Answer with the worker's `pid`, the `threads` alive in it now, and its `uptime_s`."""
    return json_response(
        HTTPStatus.OK,
        threads=threading.active_count(),
        uptime_s=round(clock.uptime_s(), 3),
    )
