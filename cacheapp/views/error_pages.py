"""The pages of errors that no view handles: 400, 403, 404, 413, CSRF and 500.

For `handler400` to `handler500` in a URLconf, and for the setting `CSRF_FAILURE_VIEW`. Clients that do
not accept HTML get the API's JSON.
"""

import base64
import hashlib
from http import HTTPStatus

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from cacheapp.views.pages import CSRF_ADVICE, error_page, set_security_headers, too_large_text
from cacheapp.views.responses import problem_response

_STYLE = """
:root { color-scheme: light dark; }
body { font: 100%/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
a { color: LinkText; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_SERVER_ERROR = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Internal Server Error · cacheapp</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Internal Server Error</h1>
<p>The server could not finish this request, and has written the reason into its log.</p>
<p>Load the page again. If it fails again, give the administrator the time and the address of the page.</p>
<nav aria-label="Pages"><a href="/">Front page</a></nav>
</main>
</body>
</html>
"""


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Return the page of a 500. It is a constant: database, templates and static files may be broken."""
    if not _accepts_html(request):
        return problem_response(
            HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log has the reason"
        )
    policy = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return HttpResponse(_SERVER_ERROR, status=HTTPStatus.INTERNAL_SERVER_ERROR, headers=headers)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Return the page of a 400, or of a 413 if the form is too large."""
    if isinstance(exception, RequestDataTooBig):
        return _page(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large_text())
    return _page(request, HTTPStatus.BAD_REQUEST, "The request is malformed.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Return the page of a 403."""
    return _page(request, HTTPStatus.FORBIDDEN, str(exception) or "You may not do this.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Return the page of a 404, without the patterns that Django's exception lists."""
    del exception
    return _page(request, HTTPStatus.NOT_FOUND, f"There is no page at {request.path}.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """Return the page of a form without a valid token."""
    return _page(request, HTTPStatus.FORBIDDEN, f"CSRF: {reason}", CSRF_ADVICE)


def _page(
    request: HttpRequest, status: HTTPStatus, why: str, advice: str | None = None
) -> HttpResponseBase:
    if not _accepts_html(request):
        return problem_response(status, why)
    return set_security_headers(error_page(request, status, why, advice))


def _accepts_html(request: HttpRequest) -> bool:
    accepted = request.headers.get("Accept", "")
    return "text/html" in accepted or request.headers.get("HX-Request") == "true"
