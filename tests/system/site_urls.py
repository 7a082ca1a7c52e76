"""The pages of the example site: a session, a cached page, a cached fragment, a limited login."""

import os
import uuid
from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.urls import path
from django.views.decorators.cache import cache_page

SITE_ALIAS: str = settings.SITE_ALIAS  # type: ignore[misc]  # of site_settings alone
ALLOWED_ATTEMPTS = 5
_FRAGMENT = Engine(libraries={"cache": "django.templatetags.cache"}).from_string(
    "{% load cache %}{% cache 600 fragment user using=alias %}{{ made }}{% endcache %}"
)


def say_who(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Return the pid of the worker."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = answer(request)
        response["X-Worker"] = str(os.getpid())
        return response

    return middleware


def visit(request: HttpRequest) -> HttpResponse:
    """Count this visitor's visits in the session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


@cache_page(600, cache=SITE_ALIAS)
def page(_request: HttpRequest) -> HttpResponse:
    """Render an expensive page; its content identifies the rendering."""
    return HttpResponse(uuid.uuid4().hex)


def fragment(_request: HttpRequest) -> HttpResponse:
    """Cache a part of a page."""
    context = {"made": uuid.uuid4().hex, "user": "somebody", "alias": SITE_ALIAS}
    return HttpResponse(_FRAGMENT.render(Context(context)))


def login(_request: HttpRequest) -> HttpResponse:
    """Limit attempts as Django's documentation of `incr` suggests: `add`, then `incr`."""
    cache = caches[SITE_ALIAS]
    cache.add("attempts", 0, timeout=600)
    if cache.incr("attempts") > ALLOWED_ATTEMPTS:
        return HttpResponse("too many", status=HTTPStatus.TOO_MANY_REQUESTS)
    return HttpResponse("allowed")


urlpatterns = [
    path("visit", visit),
    path("page", page),
    path("fragment", fragment),
    path("login", login),
]
