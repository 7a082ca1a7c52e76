"""Which worker answers, and since when it does."""

import threading
from http import HTTPStatus

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp import clock
from cacheapp.views.access import permitted
from cacheapp.views.responses import allow_methods, answer


@permitted("cacheapp.use_demo")
@allow_methods("GET")
def worker(_request: HttpRequest) -> HttpResponseBase:
    """Answer with the worker's `pid`, the `threads` alive in it now, and its `uptime_s`."""
    return answer(
        HTTPStatus.OK,
        threads=threading.active_count(),
        uptime_s=round(clock.uptime_s(), 3),
    )
