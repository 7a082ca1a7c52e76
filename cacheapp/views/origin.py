"""A small origin server: generated files for trying downloads without a network."""

from http import HTTPStatus

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cacheapp.demo.origin import content
from cacheapp.processes.waiting import pause
from cacheapp.typed_values import digits
from cacheapp.views.fields import read_query
from cacheapp.views.local_access import demo_only
from cacheapp.views.responses import ApiError, allow_methods

DEFAULT_BYTES, MAX_BYTES = 1024, 10 * 2**20
MAX_DELAY_MS = 5000
MAX_NUMBER = 10**9


@demo_only
@allow_methods("GET")
def file(request: HttpRequest, number: int) -> HttpResponseBase:
    """Send file `number` with `?bytes=` bytes, after `?delay_ms=` milliseconds."""
    if number > MAX_NUMBER:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, f"the file number is {number}; expected at most {MAX_NUMBER}"
        )
    query = read_query(
        request, {"bytes": digits(0, MAX_BYTES), "delay_ms": digits(0, MAX_DELAY_MS)}
    )
    size = query.get("bytes", DEFAULT_BYTES)
    pause(query.get("delay_ms", 0) / 1000)
    response = StreamingHttpResponse(content(number, size), content_type="application/octet-stream")
    response["Content-Length"] = str(size)
    response["ETag"] = f'"{number}-{size}"'  # strong: equal tags are equal bytes
    response["Accept-Ranges"] = "none"
    response["Cache-Control"] = "no-store"
    return response
