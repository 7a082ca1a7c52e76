"""`/metrics` for Prometheus: the sums of this machine, from any worker."""

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from cacheapp.errors import ExtraMissing
from cacheapp.views.access import permission_required
from cacheapp.views.responses import ApiError, allow_methods


@permission_required("cacheapp.view_stats")
@allow_methods("GET")
def metrics(request: HttpRequest) -> HttpResponse:
    """Return all metrics; 501 without the package that writes them."""
    try:
        from cacheapp.telemetry import prometheus  # noqa: PLC0415 (an extra)
    except ExtraMissing as exc:
        raise ApiError(HTTPStatus.NOT_IMPLEMENTED, str(exc)) from exc
    body, content_type = prometheus.exposition(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type, headers={"Cache-Control": "no-store"})
