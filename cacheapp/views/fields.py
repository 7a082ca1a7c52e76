"""Reads the fields of a JSON body; unknown or ill-typed is an error that names the field."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest

from cacheapp.views.responses import ApiError, has_body, read_json

Reader = Callable[[Any], Any]

_EXACT_IN_JSON = 2**53  # what every JSON reader keeps exact
_MAX_TIMEOUT_S = 10 * 365 * 86_400


def anything(value: Any) -> Any:
    """Read any JSON value."""
    return value


def whole_number(value: Any) -> int:
    """Read an int that every JSON reader keeps exact."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _EXACT_IN_JSON:
        raise ValueError("a whole number from -2**53 to 2**53")
    return value


def timeout(value: Any) -> float | None:
    """Read Django's timeout: seconds, 0 for "do not store", `None` for ever."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _MAX_TIMEOUT_S:
        raise ValueError(f"seconds from 0 to {_MAX_TIMEOUT_S}, or null for ever")
    return float(value) if isinstance(value, float) else int(value)


def read_fields(
    request: HttpRequest, required: dict[str, Reader], optional: dict[str, Reader]
) -> dict[str, Any]:
    """Return the fields that the body has; it may be missing where nothing is required."""
    if not has_body(request) and not required:
        return {}
    body = read_json(request)
    readers = {**required, **optional}
    mistakes = [f"{name!r} is missing" for name in required if name not in body]
    found = {}
    for name, value in body.items():
        if name not in readers:
            mistakes.append(f"{name[:40]!r} is not a field; expected {', '.join(readers)}")
            continue
        try:
            found[name] = readers[name](value)
        except ValueError as exc:
            mistakes.append(f"{name!r} is {str(value)[:40]!r}; expected {exc}")
    if mistakes:
        raise ApiError(HTTPStatus.BAD_REQUEST, "; ".join(mistakes))
    return found
