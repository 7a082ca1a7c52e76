"""Read JSON bodies, and build the JSON responses and errors of the API.

Errors follow RFC 9457 (`application/problem+json`): `status`, `title` and `detail`; also `error`, the
same sentence as `detail`, and further fields of the view.
"""

import functools
import json
import math
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse, UnreadablePostError
from django.http.response import HttpResponseBase

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

PROBLEM_TYPE = "application/problem+json"
BODY_LIMIT_BYTES = 64 * 1024
MAX_DIGITS = 1000
_MAX_NESTING = 100  # far below the depth at which serializing would exhaust the stack


class ApiError(Exception):
    """An error response, which `json_errors` sends. Raise it before anything is changed."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.extra = extra


def json_response(
    status: HTTPStatus, headers: Mapping[str, str] | None = None, **fields: Any
) -> JsonResponse:
    """Return a JSON object with the fields and the worker's `pid`, not to be cached."""
    return _no_store_json(status, headers, fields)


def problem_response(
    status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> JsonResponse:
    """Return an error response with the extra fields."""
    fields = {"title": status.phrase, "status": status.value, "detail": message, "error": message}
    response = _no_store_json(status, headers, {**fields, **extra})
    response["Content-Type"] = PROBLEM_TYPE
    return response


def _no_store_json(
    status: HTTPStatus, headers: Mapping[str, str] | None, fields: Mapping[str, Any]
) -> JsonResponse:
    response = JsonResponse({"pid": os.getpid(), **fields}, status=status, headers=headers)
    response["Cache-Control"] = "no-store"
    response.content += b"\n"  # for curl: the shell prompt starts on its own line
    return response


def json_errors(view: View[P]) -> View[P]:
    """Convert an `ApiError` that the view raises into a JSON response."""

    @functools.wraps(view)
    def answering(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except ApiError as exc:
            return problem_response(exc.status, str(exc), exc.headers, **exc.extra)

    return answering


def allow_methods(*allowed: str) -> Callable[[View[P]], View[P]]:
    """Respond to other methods with 405 and `Allow`. GET includes HEAD. Use inside `json_errors`."""
    known = [*allowed, "HEAD"] if "GET" in allowed else list(allowed)

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def limited(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if request.method not in known:
                raise ApiError(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"method {request.method} is not allowed here; expected one of {', '.join(known)}",
                    headers={"Allow": ", ".join(known)},
                )
            return view(request, *args, **kwargs)

        return limited

    return decorate


def has_body(request: HttpRequest) -> bool:
    """Return True if the headers announce a body."""
    return "HTTP_TRANSFER_ENCODING" in request.META or _content_length(request) != 0


def read_json(request: HttpRequest, limit: int = BODY_LIMIT_BYTES) -> dict[str, Any]:
    """Return the body's JSON object; raise `ApiError` for anything else.

    `Content-Length` is checked before a byte is read. Besides invalid JSON, these are errors: duplicate
    names in an object, `NaN` and infinities, integers too long to convert back, text that is not
    UTF-8, and deep nesting.
    """
    if request.content_type != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {request.content_type!r}; expected application/json",
        )
    body = _read(request, limit)
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_names,
            parse_float=_parse_float,
            parse_int=_parse_int,
            parse_constant=_parse_float,
        )
        _check_nesting(found)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            f"the body is a JSON {type(found).__name__}; expected an object: {{…}}",
        )
    return found


def _parse_int(digits: str) -> int:
    """Return an integer. Python refuses to convert more than 4,300 digits back to text."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; expected at most {MAX_DIGITS}")
    return int(digits)


def _content_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return -1


def _read(request: HttpRequest, limit: int) -> bytes:
    if "HTTP_TRANSFER_ENCODING" in request.META:
        # Django reads Content-Length bytes: a chunked body would appear empty.
        raise ApiError(
            HTTPStatus.LENGTH_REQUIRED,
            "the body has no Content-Length; chunked bodies are not supported",
        )
    length = _content_length(request)
    if length < 0:
        raise ApiError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if length > limit:
        raise _too_large(length, limit)
    try:
        body = request.body
    except RequestDataTooBig as exc:  # the project's DATA_UPLOAD_MAX_MEMORY_SIZE is smaller
        raise _too_large(length, limit) from exc
    except UnreadablePostError as exc:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the body is incomplete: {exc}") from exc
    if len(body) != length:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            f"the body is incomplete: received {len(body)} of {length} bytes",
        )
    return body


def _too_large(length: int, limit: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has {length} bytes; expected at most {limit}",
    )


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate name {twice!r} in an object")
    return found


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a valid JSON number")
    return number


def _check_nesting(root: Any) -> None:
    level = [root]
    for _ in range(_MAX_NESTING):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_MAX_NESTING} levels deep")
