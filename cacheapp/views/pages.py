"""Shared code of all HTML pages: permissions, security headers, navigation and error pages.

A page is an ordinary view: it responds to a form with a redirect, and works without JavaScript. htmx
requests the same URL with the header `HX-Request`, and gets only the part of the page that changes.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import OperationalError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.template.defaultfilters import filesizeformat
from django.utils.cache import patch_vary_headers

from cacheapp.errors import StoreUnavailable
from cacheapp.views.access import CsrfRefused, permission_required
from cacheapp.views.navigation import has_users, navigation, page_before, wanted_page
from cacheapp.views.responses import P, View
from cacheapp.views.same_as_json import same_as_json

logger = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# A drawing has inline styles. It cannot load or run anything, neither as an image nor on its own.
DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
CSRF_ADVICE = "Allow cookies for this site, load the page of the form again, and send it again."
_ADVICE = {
    HTTPStatus.FORBIDDEN: "An administrator can give you the permission.",
    HTTPStatus.NOT_FOUND: "It may have been removed, or it belongs to another user.",
    HTTPStatus.METHOD_NOT_ALLOWED: "Use the buttons of the page that leads here.",
    HTTPStatus.CONFLICT: "The state has changed since the page was loaded; look at it again.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Send less at once.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Nothing is wrong with your request; try again in a minute.",
}


def page(permission: str | None, *methods: str, **by_method: str) -> Callable[[View[P]], View[P]]:
    """Make a view a page that requires a permission and has the security headers.

    `methods` are the allowed ones, GET by default; GET includes HEAD. `by_method` allows further ones,
    with permissions of their own, as in `permission_required`. Errors 403, 404 and
    503 (the database, a cache or `STATE_DIR` cannot be used) are HTML pages too.
    """
    allowed = [*(methods or ["GET"]), *by_method]
    allowed += ["HEAD"] if "GET" in allowed else []

    def decorate(view: View[P]) -> View[P]:
        guarded = permission_required(permission, page_methods=allowed, **by_method)(view)

        @functools.wraps(guarded)
        def wrapper(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            try:
                response = guarded(request, *args, **kwargs)
            except CsrfRefused as exc:
                response = error_page(request, HTTPStatus.FORBIDDEN, str(exc), CSRF_ADVICE)
            except PermissionDenied as exc:
                response = error_page(request, HTTPStatus.FORBIDDEN, str(exc))
            except RequestDataTooBig:
                why = too_large_text()
                response = error_page(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
            except Http404 as exc:
                response = error_page(request, HTTPStatus.NOT_FOUND, str(exc))
            except StoreUnavailable as exc:
                response = error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
            except OperationalError as exc:
                response = _no_database(request, exc)
            if isinstance(response, HttpResponseNotAllowed):
                response = _not_allowed(request, response["Allow"])
            return set_security_headers(response)

        return wrapper

    return decorate


def _not_allowed(request: HttpRequest, allowed: str) -> HttpResponse:
    """Return the page of a 405, which a person sees who loads the address of a button."""
    why = f"{request.method} is not possible here; expected {allowed}."
    response = error_page(request, HTTPStatus.METHOD_NOT_ALLOWED, why)
    response["Allow"] = allowed
    return response


def _no_database(request: HttpRequest, error: OperationalError) -> HttpResponse:
    # The error may name hosts and users, and the caller may not be authenticated.
    logger.warning(
        "no page: the database is unavailable: %s", error, extra={"event": "no_database"}
    )
    message = "The database is unavailable; try again later."
    return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, message)


def set_security_headers(response: HttpResponseBase) -> HttpResponseBase:
    """Add the content security policy, unless the view set its own, and forbid caching."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    patch_vary_headers(response, ["HX-Request"])
    return response


def render_page(
    request: HttpRequest,
    template: str,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    part: str | None = None,
    **context: Any,
) -> HttpResponse:
    """Render a page, or only its `part` if htmx requests it."""
    if part and request.headers.get("HX-Request") == "true":
        return render(request, f"cacheapp/{part}", {**context, "answered_by": os.getpid()})
    return render(
        request, f"cacheapp/{template}", {**base_context(request), **context}, status=status
    )


def redirect_after_post(url: str) -> HttpResponse:
    """Redirect to a page that the browser requests with GET (303), so that reloading it repeats nothing."""
    return HttpResponseRedirect(url, status=HTTPStatus.SEE_OTHER)


def drawing_response(svg: str) -> HttpResponse:
    """Return an SVG drawing for an `<img>`: even if it contained a script, that would not run."""
    return HttpResponse(
        svg,
        content_type="image/svg+xml",
        headers={
            "Content-Security-Policy": DRAWING_POLICY,
            "X-Content-Type-Options": "nosniff",
        },
    )


def error_page(
    request: HttpRequest, status: HTTPStatus, why: str, advice: str | None = None
) -> HttpResponse:
    """Return an error page with the reason and advice; for a press of htmx, only the message.

    The page of a 503 reads neither session nor permissions: the database may be what is missing.
    """
    is_press = request.method == "POST" and request.headers.get("HX-Request") == "true"
    context: dict[str, Any] = {
        "heading": status.phrase,
        "code": status.value,
        "why": why,
        "advice": _advice_on(request, status) if advice is None else advice,
        "back": page_before(request),
        "wanted": wanted_page(request),
        "sent": _sent_urls(request, status),
    }
    if is_press:
        response = render(request, "cacheapp/parts/refusal.html", context, status=status)
        response["HX-Retarget"], response["HX-Reswap"] = "#refusal", "innerHTML"
        return response
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        context |= {"navigation": [], "user_name": "", "login_url": ""}
        return render(request, "cacheapp/error.html", context, status=status)
    return render_page(request, "error.html", **{**context, "status": status})


def too_large_text() -> str:
    """Return why a form with more than Django accepts is refused."""
    limit = filesizeformat(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    return f"The form is larger than this site accepts, which is {limit}."


def _sent_urls(request: HttpRequest, status: HTTPStatus) -> str:
    """Return the URLs of a refused order of a download, so that what a person typed is not lost.

    Only of a form of this site: another site could otherwise have this one show a text of its choice.
    """
    if status not in {HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE}:
        return ""
    if not page_before(request):
        return ""
    malformed = (SuspiciousOperation, BadRequest, MultiPartParserError, OSError)
    with contextlib.suppress(*malformed):
        return str(request.POST.get("urls", ""))
    return ""


def _advice_on(request: HttpRequest, status: HTTPStatus) -> str:
    if status is HTTPStatus.FORBIDDEN and not _user_name(request):
        return ""  # the page has a link to sign in
    return _ADVICE.get(status, "")


def _user_name(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    return str(user.get_username()) if user is not None and user.is_authenticated else ""


def base_context(request: HttpRequest) -> dict[str, Any]:
    """Return the context that every page needs."""
    return {
        "navigation": navigation(request),
        "answered_by": os.getpid(),
        "user_name": _user_name(request),
        "login_url": resolve_url(settings.LOGIN_URL) if has_users() else "",
        "same": same_as_json(request),
    }


def refresh_when_done(
    request: HttpRequest, response: HttpResponse, *, is_over: bool
) -> HttpResponse:
    """Have htmx reload the whole page once the run that it watches has ended."""
    if is_over and request.GET.get("watching") == "1":
        response["HX-Refresh"] = "true"
    return response
