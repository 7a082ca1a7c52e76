"""Which worker answers, and since when it does."""

import os
import threading
from http import HTTPStatus

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp import clock
from cacheapp.views.answers import allow_methods, answer
from cacheapp.views.guard import demo_only


class _Life:
    """When this process began to be a worker: when it loaded the project, or was forked with it."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)  # preload: the master loaded it

    def begin(self) -> None:
        self.began_s = clock.monotonic_s()


_life = _Life()


@demo_only
@allow_methods("GET")
def worker(_request: HttpRequest) -> HttpResponseBase:
    """Answer with the worker's `pid`, the `threads` alive in it now, and its `uptime_s`."""
    return answer(
        HTTPStatus.OK,
        threads=threading.active_count(),
        uptime_s=round(clock.monotonic_s() - _life.began_s, 3),
    )
