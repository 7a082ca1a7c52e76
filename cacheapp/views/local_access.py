"""Restrict the demo to programs on this machine that connect directly, without a proxy."""

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

# Headers that proxies add. If one is present, the peer of the connection is not the client.
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
    """Restrict a view to the demo; errors are JSON.

    Responds with 404 while `CACHEAPP["DEMO"]` is off, and otherwise applies `check_local`, whose rules
    replace Django's CSRF token.
    """

    @json_errors
    @functools.wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not conf().demo:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "the demo is off; CACHEAPP['DEMO'] = True enables it"
            )
        check_local(request)
        return view(request, *args, **kwargs)

    return csrf_exempt(guarded)


def check_local(request: HttpRequest, *, has_token: bool = False) -> None:
    """Raise `ApiError` (403) unless the request comes from a program on this machine.

    Refused are remote peers, proxies, other names for this machine (DNS rebinding) and cross-site
    changes. Not detected is a proxy on this machine that speaks HTTP/1.1, rewrites the Host header
    and adds no header: do not enable the demo on a machine that forwards remote requests.

    These rules replace the CSRF token, which curl does not have. Browsers send `Sec-Fetch-Site` and
    `Origin` with every cross-site change and do not let a page forge them. The only accepted body is
    `application/json`, which another site can send only after a CORS preflight, and that is never
    granted. `has_token`: the request also requires a CSRF token, so the body may be a form.
    """
    if mistake := _not_local_reason(request):
        raise ApiError(HTTPStatus.FORBIDDEN, f"the demo is restricted to this machine: {mistake}")
    if request.method in SAFE_METHODS:
        return
    if mistake := _cross_site_reason(request):
        raise ApiError(HTTPStatus.FORBIDDEN, f"cross-site changes are not allowed: {mistake}")
    if not has_token and has_body(request) and request.content_type != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is {request.content_type!r}; expected application/json",
        )


def is_local(request: HttpRequest) -> bool:
    """Return True if the request comes from a program on this machine, without a proxy."""
    return _not_local_reason(request) is None


def _not_local_reason(request: HttpRequest) -> str | None:
    """Return why the request is not from a program on this machine, or `None`."""
    # The header itself: get_host() may use X-Forwarded-Host.
    host = request.META.get("HTTP_HOST", "")
    if not _LOOPBACK_HOST.fullmatch(host):
        return f"Host is {host!r}; expected localhost, 127.0.0.1 or [::1]"
    peer = request.META.get("REMOTE_ADDR", "")
    if not _is_loopback(peer):
        return f"the connection comes from {peer!r}; expected a loopback address"
    if request.META.get("SERVER_PROTOCOL") == "HTTP/1.0":
        # nginx's default: HTTP/1.0, a loopback Host and no header of its own.
        return "the protocol is HTTP/1.0, as from a proxy; expected HTTP/1.1"
    for name in request.META:
        if name in _PROXY_HEADERS or name.startswith("HTTP_X_FORWARDED"):
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            return f"the header {header} shows that a proxy forwarded it"
    return None


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # a Unix socket has no address, and usually a proxy as its peer
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, on a dual-stack socket
    return (mapped or address).is_loopback


def _cross_site_reason(request: HttpRequest) -> str | None:
    """Return why the request is from a page of another site, or `None`."""
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site not in {None, "same-origin", "none"}:
        return f"Sec-Fetch-Site is {site!r}; expected same-origin"
    origin = request.META.get("HTTP_ORIGIN")
    own = f"{request.scheme}://{request.META['HTTP_HOST']}"
    if origin is not None and origin.lower() != own.lower():
        return f"Origin is {origin!r}; expected {own!r}"
    return None
