"""Access one key of one alias over HTTP: each request is one call of Django's cache API."""

from http import HTTPStatus

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.typed_values import anything
from cacheapp.views.access import permission_required
from cacheapp.views.cache_entry import CacheEntry, with_cache_entry
from cacheapp.views.fields import exact_int, read_fields, timeout
from cacheapp.views.responses import allow_methods


@permission_required("cacheapp.use_demo")
@allow_methods("GET", "PUT", "DELETE")
@with_cache_entry
def key(request: HttpRequest, entry: CacheEntry) -> HttpResponseBase:
    """Get, set or delete a key."""
    if request.method == "PUT":
        body = read_fields(request, {"value": anything}, {"timeout": timeout})
        entry.cache.set(entry.key, body["value"], body.get("timeout", DEFAULT_TIMEOUT))
        return entry.response(body["value"], hit=None)
    if request.method == "DELETE":
        return entry.response(None, hit=entry.cache.delete(entry.key))
    value, hit = entry.cache.get(entry.key)
    return entry.response(value, hit=hit)


@permission_required("cacheapp.use_demo")
@allow_methods("POST")
@with_cache_entry
def incr(request: HttpRequest, entry: CacheEntry) -> HttpResponseBase:
    """Increment a number. With `initial`, first add that value if the key is missing."""
    body = read_fields(request, {}, {"delta": exact_int, "initial": exact_int, "timeout": timeout})
    hit = True
    if "initial" in body:
        kept = body.get("timeout", DEFAULT_TIMEOUT)
        hit = not entry.cache.add(entry.key, body["initial"], kept)
    try:
        value = entry.cache.incr(entry.key, body.get("delta", 1))
    except ValueError as exc:
        raise entry.error(
            HTTPStatus.NOT_FOUND,
            'no such key; incr never creates one, {"initial": 0} adds it first',
            hit=False,
        ) from exc
    except TypeError as exc:
        raise entry.error(
            HTTPStatus.CONFLICT,
            f"the value is not a number that can be incremented: {exc}",
            hit=True,
        ) from exc
    return entry.response(value, hit=hit)


@permission_required("cacheapp.use_demo")
@allow_methods("POST")
@with_cache_entry
def add(request: HttpRequest, entry: CacheEntry) -> HttpResponseBase:
    """Store a value if the key is absent; `added` is True if this call stored it."""
    body = read_fields(request, {"value": anything}, {"timeout": timeout})
    added = entry.cache.add(entry.key, body["value"], body.get("timeout", DEFAULT_TIMEOUT))
    return entry.response(body["value"] if added else None, hit=not added, added=added)


@permission_required("cacheapp.use_demo")
@allow_methods("POST")
@with_cache_entry
def touch(request: HttpRequest, entry: CacheEntry) -> HttpResponseBase:
    """Give a key a new timeout."""
    body = read_fields(request, {}, {"timeout": timeout})
    hit = entry.cache.touch(entry.key, body.get("timeout", DEFAULT_TIMEOUT))
    return entry.response(None, hit=hit)


@permission_required("cacheapp.use_demo")
@allow_methods("DELETE")
@with_cache_entry
def alias(_request: HttpRequest, entry: CacheEntry) -> HttpResponseBase:
    """Remove the demo's keys of an alias; `removed` is their number."""
    return entry.response(None, hit=None, removed=entry.cache.clear())
