"""A page that does each kind of operation."""

from debug_toolbar.toolbar import debug_toolbar_urls
from django.core.cache import caches
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

from cacheapp.cached import cached


def _query() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return 1


@cached(60, alias="lmdb")
def double(number: int) -> int:
    """Return twice the number, after a query."""
    return 2 * number * _query()


def page(_request: HttpRequest) -> HttpResponse:
    """Use a cache."""
    cache = caches["lmdb"]
    cache.get("missing")
    cache.set("key", "x" * 100)
    cache.get("key")
    cache.get_many(["key", "missing"])
    cache.get_or_set("computed", _query)
    double(4)
    double(4)
    cache.add("number", 1)
    cache.incr("number")
    cache.delete_many(["number", "missing"])
    return HttpResponse("<!doctype html><html><body>page</body></html>")


urlpatterns = [path("page", page), *debug_toolbar_urls()]
