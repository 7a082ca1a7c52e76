"""Read the fields of a JSON body and the parameters of a query; a 400 names every mistake."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest

from cacheapp.typed_values import Reader, number, read_values, whole_number
from cacheapp.views.responses import ApiError, has_body, read_json

EXACT_IN_JSON = 2**53  # all JSON readers keep integers up to this exact
MAX_TIMEOUT_S = 10 * 365 * 86_400

exact_int = whole_number(-EXACT_IN_JSON, EXACT_IN_JSON)
"""Reads an int that every JSON reader keeps exact."""


def timeout(value: Any) -> float | None:
    """Read Django's timeout: seconds; 0 for "do not store"; `None` for no expiry."""
    expected = f"seconds from 0 to {MAX_TIMEOUT_S}, or null for ever"
    try:
        found = None if value is None else number(value)
    except ValueError:
        raise ValueError(expected) from None
    if found is not None and not 0 <= found <= MAX_TIMEOUT_S:
        raise ValueError(expected)
    return found


def read_fields(
    request: HttpRequest, required: dict[str, Reader], optional: dict[str, Reader]
) -> dict[str, Any]:
    """Return the fields of the body, which may be absent if no field is required."""
    if not has_body(request) and not required:
        return {}
    body = read_json(request)
    values, mistakes = read_values(body, {**required, **optional}, "a field")
    errors = [f"{name!r} is missing" for name in required if name not in body]
    errors += [f"{it.name[:40]!r} {it.error}" for it in mistakes]
    if errors:
        raise ApiError(HTTPStatus.BAD_REQUEST, "; ".join(errors))
    return values


def read_query(request: HttpRequest, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return the parameters that the query has; raise `ApiError` with all mistakes.

    Parameters without a reader are ignored.
    """
    given = {name: request.GET[name] for name in readers if name in request.GET}
    values, mistakes = read_values(given, readers, "a parameter")
    if mistakes:
        message = "; ".join(f"{it.name} {it.error}" for it in mistakes)
        raise ApiError(HTTPStatus.BAD_REQUEST, message)
    return values
