"""The index of the HTTP API: every endpoint in one line, for use with curl."""

from http import HTTPStatus

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.demo.namespace import aliases
from cacheapp.views.access import permission_required
from cacheapp.views.responses import ApiError, allow_methods, json_response

ENDPOINTS = {
    "GET /api/": "this list",
    "GET /api/openapi.json": "the description of this API, in OpenAPI 3.1; GET /api/docs/ is a page of it",
    "GET /api/worker": "the worker that responds: pid, live threads, uptime_s",
    "GET /api/stats": "hits, misses, writes and errors of each alias, summed over all workers",
    "GET /api/overview": "what every worker reads of every alias, and the last result of Show me",
    "GET /api/machines": "what two machines with a copy of Redis read, and how the last write reached them",
    "GET /api/check": "the last check from a page, with its report",
    "GET /api/lab": "the claims of the lab with their last results; ?name=... only one experiment",
    "GET /api/cache/<alias>/<key>": "the value of a key, as this worker reads it",
    "PUT /api/cache/<alias>/<key>": 'store {"value": ..., "timeout": ...}; seconds, or null for no expiry',
    "DELETE /api/cache/<alias>/<key>": "remove a key",
    "POST /api/cache/<alias>/<key>/incr": 'add {"delta": 1}; {"initial": 0} creates a missing key',
    "POST /api/cache/<alias>/<key>/add": 'store {"value": ..., "timeout": ...} if the key is absent',
    "POST /api/cache/<alias>/<key>/touch": 'set a new {"timeout": ...} for a key',
    "DELETE /api/cache/<alias>": "remove the demo's keys only",
    "GET /api/demo/file/<n>": "a file to download: ?bytes=... (to 10 MiB) &delay_ms=... (to 5000)",
}
DOWNLOAD_ENDPOINTS = {
    "POST /api/downloads": 'fetch {"urls": [...], "threads": 32}, or {"manifest": "..."}, {"s3": "..."}',
    "GET /api/downloads": "the newest downloads: ?limit=... (to 100) &state=...",
    "GET /api/downloads/<id>": "the state of a download, from any worker",
    "GET /api/downloads/<id>/files": "its files: ?limit=... (to 1000) &state=...",
    "GET /api/downloads/<id>/events": "server-sent events: ?files=1 includes its files",
    "POST /api/downloads/<id>/pause": "pause it, from any worker; also /resume, /cancel, /retry",
    "DELETE /api/downloads/<id>": "cancel it; with ?files=keep or ?files=delete remove it",
}
"""If `cacheapp.downloads` is installed."""


@permission_required()
@allow_methods("GET")
def index(_request: HttpRequest) -> HttpResponseBase:
    """Return all endpoints and all aliases."""
    backends = {alias: settings.CACHES[alias]["BACKEND"] for alias in aliases()}
    more = DOWNLOAD_ENDPOINTS if apps.is_installed("cacheapp.downloads") else {}
    return json_response(HTTPStatus.OK, endpoints={**ENDPOINTS, **more}, aliases=backends)


@permission_required()
def not_found(request: HttpRequest, rest: str) -> HttpResponseBase:
    """Respond with 404 in JSON to unknown URLs under `/api/`."""
    del rest
    raise ApiError(
        HTTPStatus.NOT_FOUND, f"no endpoint at {request.path}; GET /api/ lists all endpoints"
    )
