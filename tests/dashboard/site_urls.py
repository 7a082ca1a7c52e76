"""The project's URLs, and one page of a shop: what it shows is computed once, and kept for a minute."""

import contextlib
import time
from http import HTTPStatus
from typing import Any

from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from cacheapp.errors import CacheappError

_BYTES = 20_000
_COMPUTING_S = 0.01


def _compute() -> bytes:
    time.sleep(_COMPUTING_S)
    return bytes(_BYTES)


def page(_request: HttpRequest, alias: str, number: int) -> HttpResponse:
    """Show a product."""
    cache: Any = caches[alias]
    with contextlib.suppress(CacheappError):  # the server of this alias may be down
        cache.get_or_set(f"product-{number}", _compute, 60, stale=10)
        cache.get_many([f"price-{number}", f"stock-{number}"])
        cache.set(f"price-{number}", number, 10)
        with contextlib.suppress(ValueError):
            cache.incr(f"views-{number}")
        cache.add(f"views-{number}", 1, 60)
        if number % 10 == 0:
            cache.delete(f"product-{number}")
        return HttpResponse("a product")
    return HttpResponse("no cache", status=HTTPStatus.SERVICE_UNAVAILABLE)


urlpatterns = [path("shop/<alias>/<int:number>", page), path("", include("project.urls"))]
