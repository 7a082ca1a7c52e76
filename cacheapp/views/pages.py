"""Shared code of all HTML pages: permissions, security headers, navigation and error pages.

A page is an ordinary view: it responds to a form with a redirect, and works without JavaScript. htmx
requests the same URL with the header `HX-Request`, and gets only the part of the page that changes.
"""

import functools
import logging
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.cache import patch_vary_headers

from cacheapp.errors import StoreUnavailable
from cacheapp.views.access import permission_required
from cacheapp.views.responses import P, View

logger = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# A drawing has inline styles. It cannot load or run anything, neither as an image nor on its own.
DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_NAVIGATION = (
    ("index", "Caches"),
    ("lab_page", "Lab"),
    ("check_page", "Check"),
    ("downloads_page", "Downloads"),
    ("stats_page", "Stats"),
)


def page(permission: str, *methods: str, **by_method: str) -> Callable[[View[P]], View[P]]:
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
            except PermissionDenied as exc:
                response = error_page(request, HTTPStatus.FORBIDDEN, str(exc))
            except Http404 as exc:
                response = error_page(request, HTTPStatus.NOT_FOUND, str(exc))
            except StoreUnavailable as exc:
                response = error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
            except OperationalError as exc:
                # The error may name hosts and users, and the caller may not be authenticated.
                logger.warning(
                    "no page: the database is unavailable: %s", exc, extra={"event": "no_database"}
                )
                message = "The database is unavailable; try again later."
                response = error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, message)
            return set_security_headers(response)

        return wrapper

    return decorate


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
        request, f"cacheapp/{template}", {**_base_context(request), **context}, status=status
    )


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


def error_page(request: HttpRequest, status: HTTPStatus, why: str) -> HttpResponse:
    """Return an error page with the reason."""
    return render_page(request, "error.html", status=status, heading=status.phrase, why=why)


def _base_context(request: HttpRequest) -> dict[str, Any]:
    """Return the context that every page needs."""
    user = getattr(request, "user", None)
    home = reverse("cacheapp:index")
    navigation = []
    for name, title in _NAVIGATION:
        url = reverse(f"cacheapp:{name}")
        is_current = request.path == url if url == home else request.path.startswith(url)
        navigation.append({"url": url, "title": title, "is_current": is_current})
    return {
        "navigation": navigation,
        "answered_by": os.getpid(),
        "user_name": user.get_username() if user is not None and user.is_authenticated else "",
        "login_url": resolve_url(settings.LOGIN_URL),
    }


def refresh_when_done(
    request: HttpRequest, response: HttpResponse, *, is_over: bool
) -> HttpResponse:
    """Have htmx reload the whole page once the run that it watches has ended."""
    if is_over and request.GET.get("watching") == "1":
        response["HX-Refresh"] = "true"
    return response
