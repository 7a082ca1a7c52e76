"""What an action reports on the page that follows its redirect: a signed cookie, which that page removes.

So it needs neither a session nor Django's messages, which a project may not have.
"""

from typing import Any

from django.core import signing
from django.http import HttpRequest, HttpResponse

_COOKIE = "cacheapp_report"
_MAX_AGE_S = 120
_MAX_CHARS = 3500
"""Browsers keep cookies of up to 4,096 bytes."""


def keep_report(
    request: HttpRequest, response: HttpResponse, done: str, refused: list[str]
) -> None:
    """Have the page that follows show what was done, and the refusals, as many as a cookie holds."""
    shown = list(refused)
    while len(text := _signed(done, shown, len(refused) - len(shown))) > _MAX_CHARS:
        shown.pop()
    response.set_cookie(
        _COOKIE,
        text,
        max_age=_MAX_AGE_S,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )


def _signed(done: str, shown: list[str], left_out: int) -> str:
    more = [f"and {left_out} more"] if left_out else []
    return signing.dumps([done, [*shown, *more]], salt=_COOKIE, compress=True)


def kept_report(request: HttpRequest) -> dict[str, Any] | None:
    """Return the report of the action before, or `None`."""
    try:
        done, refused = signing.loads(
            request.COOKIES.get(_COOKIE, ""), salt=_COOKIE, max_age=_MAX_AGE_S
        )
    except (signing.BadSignature, ValueError):
        return None
    return {"done": done, "refused": refused}


def remove_report(response: HttpResponse) -> None:
    """Have the browser forget the report."""
    response.delete_cookie(_COOKIE, samesite="Lax")
