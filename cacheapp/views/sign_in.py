"""The sign-in page, with a rate limit. For projects with users, so no other view imports it."""

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
"""Attempts to sign in with one user name from one address, per so many seconds."""


def _attempt_key(request: HttpRequest) -> str:
    # Includes the name: behind a proxy all clients share one address, and would lock each other out.
    name = hashlib.sha256(request.POST.get("username", "").encode()).hexdigest()[:32]
    address = "unknown"
    with contextlib.suppress(ImproperlyConfigured):  # a Unix socket
        address = client_address(request)
    return f"sign-in {name}@{address}"


# While the cache fails, sign-ins are not limited; the log has a line about it.
limit_attempts = throttle(MAX_ATTEMPTS, PER_S, key=_attempt_key, methods=["POST"], on_error="allow")
"""Decorator for views that accept passwords; all its views share one counter."""


class SignIn(LoginView):
    """The sign-in page, with limited attempts."""

    template_name = "cacheapp/login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Apply the limit and the security headers."""
        response: HttpResponseBase = limit_attempts(super().dispatch)(request, *args, **kwargs)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait_s = response["Retry-After"]
            why = f"Too many attempts to sign in with this name. Try again in {wait_s} s."
            response = error_page(request, HTTPStatus.TOO_MANY_REQUESTS, why)
            response["Retry-After"] = wait_s
        return set_security_headers(response)
