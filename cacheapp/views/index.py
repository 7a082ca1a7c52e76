"""What can be asked: the front door for whoever has only curl."""

from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.demo.namespace import aliases
from cacheapp.views.access import permission_required
from cacheapp.views.responses import ApiError, allow_methods, json_response

ENDPOINTS = {
    "GET /api/": "this list",
    "GET /api/worker": "which worker answers: its pid, threads alive, uptime_s",
    "GET /api/stats": "hits, misses, writes, errors of each alias: the sum over all workers",
    "GET /api/cache/<alias>/<key>": "what this worker sees of a key",
    "PUT /api/cache/<alias>/<key>": 'store {"value": ..., "timeout": ...}; seconds, or null for ever',
    "DELETE /api/cache/<alias>/<key>": "remove a key",
    "POST /api/cache/<alias>/<key>/incr": 'add {"delta": 1}; {"initial": 0} where it is missing',
    "POST /api/cache/<alias>/<key>/add": 'store {"value": ..., "timeout": ...} if the key is absent',
    "POST /api/cache/<alias>/<key>/touch": 'give a key a new {"timeout": ...}',
    "DELETE /api/cache/<alias>": "remove the demo's keys, and no others",
    "POST /api/downloads": 'fetch {"urls": [...], "threads": 32}, or {"manifest": "..."}, {"s3": "..."}',
    "GET /api/downloads": "the newest downloads: ?limit=... (to 100) &state=...",
    "GET /api/downloads/<id>": "where a download is, from any worker",
    "GET /api/downloads/<id>/files": "its files: ?limit=... (to 1000) &state=...",
    "GET /api/downloads/<id>/events": "server-sent events about it: ?files=1 about its files too",
    "POST /api/downloads/<id>/pause": "pause it, from any worker; also /resume, /cancel, /retry",
    "DELETE /api/downloads/<id>": "cancel it; with ?files=keep or ?files=delete remove it",
    "GET /api/demo/file/<n>": "a file to download: ?bytes=... (to 10 MiB) &delay_ms=... (to 5000)",
}


@permission_required()
@allow_methods("GET")
def index(_request: HttpRequest) -> HttpResponseBase:
    """Answer with one line for each thing that can be asked, and the aliases to ask about."""
    backends = {alias: settings.CACHES[alias]["BACKEND"] for alias in aliases()}
    return json_response(HTTPStatus.OK, endpoints=ENDPOINTS, aliases=backends)


@permission_required()
def not_found(request: HttpRequest, rest: str) -> HttpResponseBase:
    """Refuse an address under `/api/` that is none, as JSON."""
    del rest
    raise ApiError(
        HTTPStatus.NOT_FOUND, f"nothing is at {request.path}; GET /api/ lists what can be asked"
    )
