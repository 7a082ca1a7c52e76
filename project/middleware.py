"""Middleware of this deployment: foreign hosts, the client's address behind a proxy, security headers."""

import contextlib
import ipaddress
from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseBadRequest
from django.http.response import HttpResponseBase

from cacheapp.views.pages import CONTENT_SECURITY_POLICY

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def refuse_foreign_hosts(get_response: GetResponse) -> GetResponse:
    """Respond with 400 if `Host` is not in `ALLOWED_HOSTS`, also with DEBUG.

    Django's debug page would show settings to a page of another site (DNS rebinding).
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        try:
            request.get_host()
        except DisallowedHost:
            return HttpResponseBadRequest(
                "The Host of the request is not allowed here.\n", content_type="text/plain"
            )
        return get_response(request)

    return middleware


def client_behind_proxy(get_response: GetResponse) -> GetResponse:
    """Set `REMOTE_ADDR` to the address that the proxy in front appended to `X-Forwarded-For`.

    Only for `BEHIND_TLS_PROXY`: anything else lets clients choose their address. Earlier addresses in
    the header may come from the client.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        last = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        with contextlib.suppress(ValueError):  # the limits then count the proxy's address
            request.META["REMOTE_ADDR"] = str(ipaddress.ip_address(last))
        return get_response(request)

    return middleware


def content_security_policy(get_response: GetResponse) -> GetResponse:
    """Add the policy of the pages to all responses without one, such as those of Django's admin.

    Not to Django's debug pages, which have inline styles and scripts.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if not (settings.DEBUG and response.status_code >= HTTPStatus.BAD_REQUEST):
            response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return middleware
