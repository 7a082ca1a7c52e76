"""Access control: every API view and every page names the permission that it requires.

Credentials are tried in this order:

1. API only: `Authorization: Bearer <secret>`. `CACHEAPP["API_TOKENS"]` has the digest of the
   secret, its permissions, and optionally the user for whom it acts, who must have the permissions
   too. If the header is present, only the token counts, so a wrong token is always an error. No
   CSRF token is required, because browsers do not send this header on their own.
2. A Django session of a user with the permission. Unsafe methods require a CSRF token.
3. With the demo on, any program on this machine (`local_access.check_local`). Pages require a CSRF
   token here too.

Without valid credentials, the API responds with 401 and a page redirects to the login; without the
permission, both respond with 403.
"""

import dataclasses
import functools
import hashlib
import hmac
import logging
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.vary import vary_on_headers

from cacheapp.access_settings import ApiToken, user_key, user_name
from cacheapp.conf import conf
from cacheapp.views.local_access import SAFE_METHODS, check_local
from cacheapp.views.navigation import has_users
from cacheapp.views.responses import ApiError, P, View, json_errors

logger = logging.getLogger(__name__)

_CALLER_KEY = (
    "cacheapp.caller"  # in META; a header cannot set it, because header names start with HTTP_
)
_REALM = 'Bearer realm="cacheapp"'


class CsrfRefused(PermissionDenied):
    """A form without a valid CSRF token."""


@dataclasses.dataclass(frozen=True)
class Caller:
    """The authenticated user, API token or local program."""

    key: str
    """Unique per caller, the same in all workers, and unchanged when a user is renamed: `user:7`,
    `token:nightly`, `local`. A token that acts for a user has the user's."""
    name: str
    """For people: `user 7 (ann)`, `token nightly`."""
    via: str
    """`api` or `page`."""
    has_permission: Callable[[str], bool] = dataclasses.field(repr=False)
    """Return True if the caller has the permission."""


def permission_required(
    permission: str | None = None,
    /,
    *,
    page_methods: Collection[str] | None = None,
    **by_method: str,
) -> Callable[[View[P]], View[P]]:
    """Require a permission for a view; `None` requires only valid credentials.

    `by_method` overrides the permission for a method: `POST="cacheapp_downloads.add_downloadjob"`. In
    the view, `caller(request)` returns the caller. For the API, refusals, the view's `ApiError` and
    database errors become problem responses in JSON. `page_methods` selects the rules for HTML pages: its
    methods are allowed, and others get a 405 once the caller has the permission.
    """

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            needed = by_method.get(request.method or "", permission)
            if page_methods is not None:
                found = _authorize_page(request, needed, page_methods)
                if isinstance(found, HttpResponse):
                    return found
            else:
                found = _authorize_api(request, needed)
            request.META[_CALLER_KEY] = found
            return view(request, *args, **kwargs)

        form = (
            guarded if page_methods is not None else json_errors(_database_errors_as_503(guarded))
        )
        # Exempt from the middleware: `_csrf_error` checks the token where it is required.
        return csrf_exempt(vary_on_headers("Cookie", "Authorization")(form))

    return decorate


def caller(request: HttpRequest) -> Caller:
    """Return the caller that `permission_required` authenticated."""
    found = request.META[_CALLER_KEY]
    assert isinstance(found, Caller)  # noqa: S101 (only `permission_required` writes it)
    return found


def check_permission(request: HttpRequest, permission: str) -> None:
    """Raise `ApiError` unless the caller also has this permission."""
    found = caller(request)
    if not found.has_permission(permission):
        message = f"{found.name} does not have the permission {permission}"
        raise ApiError(HTTPStatus.FORBIDDEN, message)


def _database_errors_as_503(view: View[P]) -> View[P]:
    """Respond with 503 if the database is unreachable or stays locked."""

    @functools.wraps(view)
    def answering(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except OperationalError as exc:
            # The error may name hosts and users, and the caller may not be authenticated.
            logger.warning("the database is unavailable: %s", exc, extra={"event": "no_database"})
            message = "the database is unavailable; try again later"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from exc

    return answering


def _authorize_api(request: HttpRequest, permission: str | None) -> Caller:
    """Return the caller; raise `ApiError` without credentials or permission."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _token_caller(secret.strip(), permission)
    user = _session_user(request)
    if user is not None and _allows(user.has_perm, permission):
        if mistake := _csrf_error(request):
            raise ApiError(HTTPStatus.FORBIDDEN, f"CSRF: {mistake} Send the token as X-CSRFToken.")
        return _user_caller(user, "api")
    if conf().demo:
        check_local(request)
        return _local_caller("api")
    if user is not None:
        message = f"user {user.get_username()} does not have the permission {permission}"
        raise ApiError(HTTPStatus.FORBIDDEN, message)
    raise ApiError(
        HTTPStatus.UNAUTHORIZED,
        "no valid credentials; expected a session, or Authorization: Bearer with a secret of "
        "CACHEAPP['API_TOKENS'] (the demo is off; while it is on, programs on this machine need none)",
        headers={"WWW-Authenticate": _REALM},
    )


def _authorize_page(
    request: HttpRequest, permission: str | None, methods: Collection[str]
) -> Caller | HttpResponse:
    """Return the caller, a redirect to the login, or a 405; raise `PermissionDenied` to refuse."""
    user = _session_user(request)
    if user is not None and _allows(user.has_perm, permission):
        found = _user_caller(user, "page")
    elif conf().demo:
        try:
            check_local(request, has_token=True)
        except ApiError as exc:
            if user is None and request.method in SAFE_METHODS:
                return _redirect_to_login(request)
            raise PermissionDenied(str(exc)) from exc
        found = _local_caller("page")
    elif user is None:
        return _redirect_to_login(request)
    else:
        raise PermissionDenied(f"this page requires the permission {permission}")
    if request.method not in methods:
        return HttpResponseNotAllowed(methods)
    if mistake := _csrf_error(request):
        raise CsrfRefused(f"CSRF: {mistake}")
    return found


def _redirect_to_login(request: HttpRequest) -> HttpResponse:
    """Redirect to the login; raise `PermissionDenied` for a form, and in a project without users."""
    if not has_users():
        raise PermissionDenied(
            "this project has no users; only the demo grants access, to programs on this machine"
        )
    if request.headers.get("HX-Request") == "true":
        # A part of a page would be replaced by the login: the browser loads the whole page instead.
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"HX-Refresh": "true"})
    if request.method not in SAFE_METHODS:  # a redirect would lose what was typed
        raise PermissionDenied("nobody is signed in; sign in, and send the form again")
    from django.contrib.auth.views import redirect_to_login  # noqa: PLC0415 (loads its models)

    return redirect_to_login(request.get_full_path())


def _session_user(request: HttpRequest) -> Any:
    """Return the authenticated user, or `None`, also in a project without users."""
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _allows(may: Callable[[str], bool], permission: str | None) -> bool:
    return permission is None or may(permission)


def _user_caller(user: Any, via: str) -> Caller:
    return Caller(user_key(user), user_name(user), via, user.has_perm)


def _local_caller(via: str) -> Caller:
    return Caller("local", "this machine", via, lambda _permission: True)


def _token_caller(secret: str, permission: str | None) -> Caller:
    token = _find_token(secret)
    if token is None:
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "the bearer token is not in CACHEAPP['API_TOKENS']",
            headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
        )
    found = _own_caller(token) if token.user is None else _caller_for_user(token, token.user)
    if not _allows(found.has_permission, permission):
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            f"{found.name} does not have the permission {permission}",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
        )
    return found


def _own_caller(token: ApiToken) -> Caller:
    key, name = f"token:{token.name}", f"token {token.name}"
    return Caller(key, name, "api", token.permissions.__contains__)


def _caller_for_user(token: ApiToken, username: str) -> Caller:
    """Return the caller of a token for a user; raise `ApiError` if that user may not sign in."""
    user = None
    if has_users():
        from django.contrib.auth import get_user_model  # noqa: PLC0415 (loads its models)

        model = get_user_model()
        user = model._default_manager.filter(**{model.USERNAME_FIELD: username}).first()  # noqa: SLF001 (Django's documented API)
    if user is None or not user.is_active:
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            f"token {token.name} acts for user {username!r}, who does not exist or is not active",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
        )

    def has_permission(permission: str) -> bool:
        return permission in token.permissions and user.has_perm(permission)

    name = f"{user_name(user)}, token {token.name}"
    return Caller(user_key(user), name, "api", has_permission)


def _find_token(secret: str) -> ApiToken | None:
    """Return the token with this secret. Compares with all tokens, so that timing reveals nothing."""
    digest = hashlib.sha256(secret.encode("latin-1", "replace")).hexdigest()
    found = None
    for token in conf().api_tokens:
        if hmac.compare_digest(token.sha256, digest):
            found = token
    return found


class _Csrf(CsrfViewMiddleware):
    """Django's CSRF check, returning the reason instead of an error page."""

    def _reject(self, _request: HttpRequest, reason: str) -> Any:
        return reason


def _csrf_error(request: HttpRequest) -> str | None:
    """Return the reason why the CSRF check fails, or `None`."""

    def view(_request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    check = _Csrf(view)
    check.process_request(request)
    reason: Any = check.process_view(request, view, (), {})
    return None if reason is None else str(reason)
