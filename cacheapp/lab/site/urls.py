"""The URLs of the site: each function of `shop`, and a session; every response has the worker's pid."""

import json
import os
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import path

from cacheapp.lab.site import shop

ACTIONS = {
    function.__name__: function
    for function in (
        *(shop.log_in, shop.log_in_get_set, shop.reset_password, shop.reset_password_get_set),
        *(shop.count_hit, shop.count_hit_get_set, shop.hits, shop.report, shop.report_get_set),
        *(shop.switch_off, shop.is_on, shop.write, shop.read),
    )
}


def _answer(**fields: Any) -> JsonResponse:
    return JsonResponse({"pid": os.getpid(), **fields})


def worker(_request: HttpRequest) -> JsonResponse:
    """Return the pid, for `cacheapp.processes.workers`."""
    return _answer()


def act(request: HttpRequest, name: str) -> JsonResponse:
    """Call a function with the arguments in the body."""
    return _answer(value=ACTIONS[name](*json.loads(request.body)["arguments"]))


def sign_in(request: HttpRequest) -> JsonResponse:
    """Start a session; the response has its key."""
    request.session["user"] = "somebody"
    request.session.save()
    return _answer(value=request.session.session_key)


def who_am_i(request: HttpRequest) -> JsonResponse:
    """Return the user of the session."""
    return _answer(value=request.session.get("user"))


urlpatterns = [
    path("api/worker", worker),
    path("do/<str:name>", act),
    path("sign-in", sign_in),
    path("who-am-i", who_am_i),
]
