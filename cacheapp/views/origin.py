"""A small origin: files that the downloads can be tried with, without leaving this machine."""

from http import HTTPStatus

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cacheapp.demo.origin import content
from cacheapp.processes.waiting import pause
from cacheapp.views.local_access import demo_only
from cacheapp.views.responses import ApiError, allow_methods

MAX_BYTES = 10 * 2**20
MAX_DELAY_MS = 5000
MAX_NUMBER = 10**9


@demo_only
@allow_methods("GET")
def file(request: HttpRequest, number: int) -> HttpResponseBase:
    """Send file `number` with `?bytes=` bytes, `?delay_ms=` after it was asked for."""
    if number > MAX_NUMBER:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the number is above {MAX_NUMBER}")
    size = _query_int(request, "bytes", 1024, MAX_BYTES)
    pause(_query_int(request, "delay_ms", 0, MAX_DELAY_MS) / 1000)
    response = StreamingHttpResponse(content(number, size), content_type="application/octet-stream")
    response["Content-Length"] = str(size)
    response["ETag"] = f'"{number}-{size}"'  # strong: equal tags are equal bytes
    response["Accept-Ranges"] = "none"
    response["Cache-Control"] = "no-store"
    return response


def _query_int(request: HttpRequest, name: str, default: int, maximum: int) -> int:
    given = request.GET.get(name)
    if given is None:
        return default
    # Digits are counted first: int() of a megabyte of them takes its time.
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(maximum))):
        number = maximum + 1
    else:
        number = int(given)
    if number > maximum:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            f"{name} is {given[:20]!r}; expected a whole number from 0 to {maximum}",
        )
    return number
