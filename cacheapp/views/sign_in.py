"""Where pages send whoever is not known; for projects with users, so no other view imports it."""

import contextlib
import hashlib
from http import HTTPStatus
from typing import Any

from django.contrib.auth.views import LoginView
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.throttle import client_address, throttle
from cacheapp.views.pages import error_page, set_security_headers

MAX_ATTEMPTS, PER_S = 10, 60.0
"""So many attempts to sign in as one user, from one address, in so many seconds."""


def _attempt_key(request: HttpRequest) -> str:
    # By name too: behind a proxy all addresses are one, and nobody is to shut out everybody.
    name = hashlib.sha256(request.POST.get("username", "").encode()).hexdigest()[:32]
    address = "nobody knows where"
    with contextlib.suppress(ImproperlyConfigured):  # by a Unix socket
        address = client_address(request)
    return f"sign-in {name}@{address}"


# While the cache that counts fails, people can still sign in; a line of the log says so.
limit_attempts = throttle(MAX_ATTEMPTS, PER_S, key=_attempt_key, methods=["POST"], on_error="allow")
"""Limits a view that takes passwords; all views that it limits count together."""


class SignIn(LoginView):
    """The page where people sign in, with a limit to how often it may be tried."""

    template_name = "cacheapp/login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer under the strict policy."""
        response: HttpResponseBase = limit_attempts(super().dispatch)(request, *args, **kwargs)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait_s = response["Retry-After"]
            why = f"Too many attempts to sign in by this name. Try again in {wait_s} s."
            response = error_page(request, HTTPStatus.TOO_MANY_REQUESTS, why)
            response["Retry-After"] = wait_s
        return set_security_headers(response)
