"""The sign-in page, with rate limits. For projects with users, so no other view imports it."""

import contextlib
import hashlib
import unicodedata
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth.forms import UsernameField
from django.contrib.auth.views import LoginView
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.throttle import client_address, throttle
from cacheapp.views.pages import error_page, set_security_headers

MAX_ATTEMPTS, PER_S = 10, 60.0
"""Attempts to sign in with one user name from one address, per so many seconds."""

MAX_ATTEMPTS_OF_ADDRESS = 30
"""Attempts from one address with any names, in the same time: each costs a password hash."""

_clean = UsernameField().to_python


def _address(request: HttpRequest) -> str:
    with contextlib.suppress(ImproperlyConfigured):  # a Unix socket
        return client_address(request)
    return "unknown"


def _name_key(request: HttpRequest) -> str:
    """Return one key for all spellings of a name that sign in as one user."""
    name = unicodedata.normalize(
        "NFKC", (_clean(request.POST.get("username", "")) or "").casefold()
    )
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    # Not for the name alone, or anyone could lock a user out.
    return f"sign-in {digest}@{_address(request)}"


def _address_key(request: HttpRequest) -> str:
    return f"sign-in @{_address(request)}"


def limit_attempts(view: Callable[..., Any]) -> Callable[..., Any]:
    """Limit a view that accepts passwords, before it hashes one; all such views share the counters.

    While the cache fails, attempts are not limited; the log has a line about it.
    """
    for rate, key in ((MAX_ATTEMPTS, _name_key), (MAX_ATTEMPTS_OF_ADDRESS, _address_key)):
        view = throttle(rate, PER_S, key=key, methods=["POST"], on_error="allow")(view)
    return view


class SignIn(LoginView):
    """The sign-in page, with limited attempts."""

    template_name = "cacheapp/login.html"
    redirect_authenticated_user = True
    http_method_names = ("get", "head", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Apply the limits and the security headers."""
        response: HttpResponseBase = limit_attempts(super().dispatch)(request, *args, **kwargs)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait_s = response["Retry-After"]
            why = (
                "Too many attempts to sign in with this name or from this address. "
                f"Try again in {wait_s} s."
            )
            response = error_page(request, HTTPStatus.TOO_MANY_REQUESTS, why)
            response["Retry-After"] = wait_s
        return set_security_headers(response)
