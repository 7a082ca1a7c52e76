"""Who may use the demo: programs on this machine that talk to it directly, and nobody else."""

import functools
import ipaddress
import re
from http import HTTPStatus

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from cacheapp.conf import conf
from cacheapp.views.responses import ApiError, P, View, has_body, json_errors

_LOOPBACK_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
SAFE_METHODS = frozenset(["GET", "HEAD", "OPTIONS", "TRACE"])

# What proxies add. One of them means that whoever asks is not who connected.
_PROXY_HEADERS = frozenset(
    [
        "HTTP_CDN_LOOP",
        "HTTP_CF_CONNECTING_IP",
        "HTTP_CF_RAY",
        "HTTP_CLIENT_IP",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_FLY_CLIENT_IP",
        "HTTP_FORWARDED",
        "HTTP_FORWARDED_FOR",
        "HTTP_PROXY_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_VIA",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_X_ENVOY_EXTERNAL_ADDRESS",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",
        "HTTP_X_ORIGINAL_HOST",
        "HTTP_X_REAL_IP",
        "HTTP_X_REMOTE_IP",
    ]
)


def demo_only(view: View[P]) -> View[P]:
    """Guard a view that is part of the demo alone; refusals, and its `ApiError`, are JSON.

    404 while `CACHEAPP["DEMO"]` is off; else as `check_local` says. Exempt from Django's CSRF token, for
    which the rules of `check_local` stand in.
    """

    @json_errors
    @functools.wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not conf().demo:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "the demo is off; CACHEAPP['DEMO'] = True turns it on"
            )
        check_local(request)
        return view(request, *args, **kwargs)

    return csrf_exempt(guarded)


def check_local(request: HttpRequest, *, has_token: bool = False) -> None:
    """Raise `ApiError` unless a program on this machine asks, and no other site through it.

    What cannot be told is a proxy on this machine that speaks HTTP/1.1, hides the name it was asked
    by and adds no header: the demo is not for machines that forward requests from elsewhere.

    403 for whoever is not on this machine, came through a proxy, used another name for it (DNS
    rebinding), or would change something from another site.

    Made for curl, which has no CSRF token. These rules stand in for it: browsers send
    `Sec-Fetch-Site` and `Origin` with every cross-site change and let no page forge them, and the
    only body that is read is `application/json`, which another site cannot send without asking (a
    CORS preflight, an OPTIONS that is never granted). `has_token`: the request had to show one, and
    so may have the body of a form.
    """
    if mistake := _not_local_reason(request):
        raise ApiError(HTTPStatus.FORBIDDEN, f"the demo is for this machine alone: {mistake}")
    if request.method in SAFE_METHODS:
        return
    if mistake := _cross_site_reason(request):
        raise ApiError(HTTPStatus.FORBIDDEN, f"other sites may not change anything: {mistake}")
    if not has_token and has_body(request) and request.content_type != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {request.content_type!r}; expected application/json",
        )


def is_local(request: HttpRequest) -> bool:
    """Return whether a program on this machine asks, without a proxy."""
    return _not_local_reason(request) is None


def _not_local_reason(request: HttpRequest) -> str | None:
    """Return what shows that the request is not from a program on this machine."""
    # The header itself, not get_host(): that may believe X-Forwarded-Host.
    host = request.META.get("HTTP_HOST", "")
    if not _LOOPBACK_HOST.fullmatch(host):
        return f"Host is {host!r}; expected localhost, 127.0.0.1 or [::1]"
    peer = request.META.get("REMOTE_ADDR", "")
    if not _is_loopback(peer):
        return f"the connection comes from {peer!r}; expected a loopback address"
    if request.META.get("SERVER_PROTOCOL") == "HTTP/1.0":
        # nginx forwards so unless told otherwise, with a loopback Host and no header of its own.
        return "it came by HTTP/1.0, as through a proxy; expected HTTP/1.1"
    for name in request.META:
        if name in _PROXY_HEADERS or name.startswith("HTTP_X_FORWARDED"):
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            return f"the header {header} says that it came through a proxy"
    return None


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # a unix socket has no address, and usually a proxy at its other end
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, on a dual-stack socket
    return (mapped or address).is_loopback


def _cross_site_reason(request: HttpRequest) -> str | None:
    """Return what shows that a page of another site sent the request."""
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site not in {None, "same-origin", "none"}:
        return f"Sec-Fetch-Site is {site!r}; expected same-origin"
    origin = request.META.get("HTTP_ORIGIN")
    own = f"{request.scheme}://{request.META['HTTP_HOST']}"
    if origin is not None and origin.lower() != own.lower():
        return f"Origin is {origin!r}; expected {own!r}"
    return None
