"""Who may: every view of the API and every page names the permission that it needs.

Three ways to have it, tried in this order:

1. The API only: `Authorization: Bearer <secret>`, where `CACHEAPP["API_TOKENS"]` has the secret's
   digest and the permission. A bearer's request is judged by its token alone, so that a wrong one is
   never overlooked; it needs no CSRF token, because no browser sends this header by itself.
2. A session of Django whose user has the permission; every change shows its CSRF token.
3. With the demo on, a program on this machine (`local_access.check_local`). Pages ask it for a CSRF token too.

Whoever has none is told 401 by the API, and is sent to the login by a page; whoever is known but
may not is told 403.
"""

import dataclasses
import functools
import hashlib
import hmac
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.apps import apps
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.vary import vary_on_headers

from cacheapp.access_settings import ApiToken
from cacheapp.conf import conf
from cacheapp.views.local_access import SAFE_METHODS, check_local
from cacheapp.views.responses import ApiError, P, View, json_errors

logger = logging.getLogger(__name__)

_CALLER_KEY = "cacheapp.caller"  # in META, where no header can put it: theirs begin with HTTP_
_REALM = 'Bearer realm="cacheapp"'


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    """Differs from caller to caller, and is the same in all workers: `user 7 (ann)`, `token nightly`."""
    has_permission: Callable[[str], bool] = dataclasses.field(repr=False)
    """Whether a permission is the caller's."""


def permission_required(
    permission: str | None = None, /, *, page: bool = False, **by_method: str
) -> Callable[[View[P]], View[P]]:
    """Let only those use a view who have a permission; `None`: whoever is known.

    `by_method` names another for a method: `POST="cacheapp.add_downloadjob"`. The view may ask
    `caller(request)` who it is. For the API, refusals, the view's `ApiError` and a database that
    does not answer become problems in JSON. `page`: for a view that people look at.
    """

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            needed = by_method.get(request.method or "", permission)
            if page:
                found = _authorize_page(request, needed)
                if isinstance(found, HttpResponse):
                    return found
            else:
                found = _authorize_api(request, needed)
            request.META[_CALLER_KEY] = found
            return view(request, *args, **kwargs)

        form = guarded if page else json_errors(_database_errors_as_503(guarded))
        # Exempt, because `_csrf_error` asks where it has to be asked.
        return csrf_exempt(vary_on_headers("Cookie", "Authorization")(form))

    return decorate


def caller(request: HttpRequest) -> Caller:
    """Return who asks, as `permission_required` has found out."""
    found = request.META[_CALLER_KEY]
    assert isinstance(found, Caller)  # noqa: S101 (only `permission_required` writes it)
    return found


def check_permission(request: HttpRequest, permission: str) -> None:
    """Raise `ApiError` unless the caller has this permission too."""
    who = caller(request)
    if not who.has_permission(permission):
        message = f"{who.name} may not: the permission {permission} is missing"
        raise ApiError(HTTPStatus.FORBIDDEN, message)


def _database_errors_as_503(view: View[P]) -> View[P]:
    """Answer 503 where the database cannot be reached or stays locked."""

    @functools.wraps(view)
    def answering(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except OperationalError as exc:
            # What it says may name hosts and users, and who asks may not be known yet.
            logger.warning("the database does not answer: %s", exc, extra={"event": "no_database"})
            message = "the database does not answer; try again later"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from exc

    return answering


def _authorize_api(request: HttpRequest, permission: str | None) -> Caller:
    """Return who asks; raise `ApiError` unless they may."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _token_caller(secret.strip(), permission)
    user = _session_user(request)
    if user is not None and _allows(user.has_perm, permission):
        if mistake := _csrf_error(request):
            raise ApiError(HTTPStatus.FORBIDDEN, f"CSRF: {mistake} Send it as X-CSRFToken.")
        return _user_caller(user)
    if conf().demo:
        check_local(request)
        return _local_caller()
    if user is not None:
        message = f"{user.get_username()} may not: the permission {permission} is missing"
        raise ApiError(HTTPStatus.FORBIDDEN, message)
    raise ApiError(
        HTTPStatus.UNAUTHORIZED,
        "who asks is not known; expected a session, or Authorization: Bearer with a secret of "
        "CACHEAPP['API_TOKENS'] (the demo is off; on, it would let this machine in)",
        headers={"WWW-Authenticate": _REALM},
    )


def _authorize_page(request: HttpRequest, permission: str | None) -> Caller | HttpResponse:
    """Return who asks, or what leads to the login; raise `PermissionDenied` unless they may."""
    user = _session_user(request)
    if user is not None and _allows(user.has_perm, permission):
        found = _user_caller(user)
    elif conf().demo:
        try:
            check_local(request, has_token=True)
        except ApiError as exc:
            if user is None and request.method in SAFE_METHODS:
                return _redirect_to_login(request)
            raise PermissionDenied(str(exc)) from exc
        found = _local_caller()
    elif user is None:
        return _redirect_to_login(request)
    else:
        raise PermissionDenied(f"the permission {permission} is missing")
    if mistake := _csrf_error(request):
        raise PermissionDenied(f"CSRF: {mistake}")
    return found


def _redirect_to_login(request: HttpRequest) -> HttpResponse:
    """Return what leads to the login; a project may do without users, and then there is none."""
    if not apps.is_installed("django.contrib.auth"):
        raise PermissionDenied("this project has no users; the demo would let this machine in")
    from django.contrib.auth.views import redirect_to_login  # noqa: PLC0415 (loads its models)

    return redirect_to_login(request.get_full_path())


def _session_user(request: HttpRequest) -> Any:
    """Return the user who is signed in, or `None`; a project may do without users."""
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _allows(may: Callable[[str], bool], permission: str | None) -> bool:
    return permission is None or may(permission)


def _user_caller(user: Any) -> Caller:
    return Caller(f"user {user.pk} ({user.get_username()})", user.has_perm)


def _local_caller() -> Caller:
    return Caller("this machine", lambda _permission: True)


def _token_caller(secret: str, permission: str | None) -> Caller:
    token = _find_token(secret)
    if token is None:
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "the bearer token is none of CACHEAPP['API_TOKENS']",
            headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
        )
    if not _allows(token.permissions.__contains__, permission):
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            f"token {token.name} may not: the permission {permission} is missing",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
        )
    return Caller(f"token {token.name}", token.permissions.__contains__)


def _find_token(secret: str) -> ApiToken | None:
    """Return the token that the secret opens. Compares with all, so that time tells nothing."""
    digest = hashlib.sha256(secret.encode("latin-1", "replace")).hexdigest()
    found = None
    for token in conf().api_tokens:
        if hmac.compare_digest(token.sha256, digest):
            found = token
    return found


class _Csrf(CsrfViewMiddleware):
    """Django's own check, which returns the reason instead of a page."""

    def _reject(self, _request: HttpRequest, reason: str) -> Any:
        return reason


def _csrf_error(request: HttpRequest) -> str | None:
    """Return what Django has against the CSRF token of a change, or `None`."""

    def view(_request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    check = _Csrf(view)
    check.process_request(request)
    reason: Any = check.process_view(request, view, (), {})
    return None if reason is None else str(reason)
