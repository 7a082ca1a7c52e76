"""The sign-in page, with rate limits. For projects with users, so no other view imports it."""

import contextlib
import hashlib
import unicodedata
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from django.contrib.auth.forms import UsernameField
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from cacheapp.throttle import client_address, throttle
from cacheapp.views.navigation import first_allowed_page
from cacheapp.views.pages import base_context, render_page, set_security_headers

MAX_ATTEMPTS, PER_S = 10, 60.0
"""Attempts to sign in with one user name from one address, per so many seconds."""

MAX_ATTEMPTS_OF_ADDRESS = 30
"""Attempts from one address with any names, in the same time: each costs a password hash."""

_MAX_NAME = 150  # characters, as Django's users
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


ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)


def _see_other(response: ResponseT) -> ResponseT:
    """Have the browser request the next page with GET, as after all forms."""
    if response.status_code == HTTPStatus.FOUND:
        response.status_code = HTTPStatus.SEE_OTHER
    return response


class SignOut(LogoutView):
    """Sign out, and lead to the page that the settings name."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Sign out."""
        return _see_other(super().dispatch(request, *args, **kwargs))


class SignIn(LoginView):
    """The sign-in page, with limited attempts."""

    template_name = "cacheapp/login.html"
    # Who is signed in may sign in as another user, which the page of a 403 leads to.
    redirect_authenticated_user = False
    http_method_names = ("get", "head", "post")

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        """Return what every page needs, and the form."""
        return super().get_context_data(**base_context(self.request), **more)

    def get_success_url(self) -> str:
        """Return the page that led here, or the first one that the user may open."""
        return first_allowed_page(self.request, super().get_success_url())

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Apply the limits and the security headers."""
        response: HttpResponseBase = limit_attempts(super().dispatch)(request, *args, **kwargs)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait_s = response["Retry-After"]
            why = (
                "Too many attempts to sign in with this name or from this address. "
                f"Try again in {wait_s} s."
            )
            response = self._refuse(request, why)
            response["Retry-After"] = wait_s
        return set_security_headers(_see_other(response))

    def _refuse(self, request: HttpRequest, why: str) -> HttpResponse:
        """Return the page with the reason, the name as it was typed, and no password."""
        return render_page(
            request,
            "login.html",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            refused=why,
            typed_name=request.POST.get("username", "")[:_MAX_NAME],
            next=request.POST.get("next", ""),
        )
