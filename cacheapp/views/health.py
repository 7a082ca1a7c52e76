"""`/livez` and `/readyz`, for load balancers and orchestrators: they need no credentials."""

from http import HTTPStatus

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from cacheapp import health
from cacheapp.views.responses import allow_methods, json_errors


@json_errors
@allow_methods("GET")
def livez(_request: HttpRequest) -> HttpResponseBase:
    """Respond with 200: this process answers. Nothing else is looked at."""
    return _response(HTTPStatus.OK, {"live": True})


@json_errors
@allow_methods("GET")
def readyz(_request: HttpRequest) -> HttpResponseBase:
    """Respond with 200 if every part works; else with 503 and what does not."""
    states = health.states()
    ready = all(state == health.OK for state in states.values())
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return _response(status, {"ready": ready, "parts": dict(states)})


def _response(status: HTTPStatus, body: dict[str, object]) -> JsonResponse:
    return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})
