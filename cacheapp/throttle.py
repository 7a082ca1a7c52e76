"""`@throttle`: limits the requests per client of a view, across all workers.

It counts with `limit()`; see `rates` for the promises.
"""

import dataclasses
import functools
import inspect
import ipaddress
import logging
import math
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.canonical import name_of
from cacheapp.errors import STORE_FAILED
from cacheapp.rates import Limit, alimit, check_rate, limit

__all__ = ["Limit", "alimit", "client_address", "limit", "throttle"]

logger = logging.getLogger(__name__)
_failures = LogThrottle()

V = TypeVar("V", bound=Callable[..., Any])


def client_address(request: HttpRequest) -> str:
    """Return the address of the connected client: an IPv4 address, or the /64 of an IPv6 address.

    `X-Forwarded-For` and similar headers are ignored, because any client can send them. Behind a
    proxy this is the proxy's address, the same for all clients: use a trusted middleware of your
    proxy that sets `REMOTE_ADDR`, or pass `key=`.
    """
    found = request.META.get("REMOTE_ADDR", "")
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        raise ImproperlyConfigured(
            f"REMOTE_ADDR is {found!r}; expected an IP address, which distinguishes clients (a unix "
            "socket has none); pass key= to @throttle"
        ) from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    # One IPv6 client usually has 2**64 addresses.
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


@dataclasses.dataclass(frozen=True)
class _Rule:
    """The arguments of `throttle`."""

    rate: int
    per: float
    key: Callable[[HttpRequest], Any] | None
    alias: str
    methods: frozenset[str] | None
    on_error: str

    def __post_init__(self) -> None:
        check_rate(self.rate, self.per, 1)
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key is {self.key!r}; expected a function of the request")
        if self.on_error not in {"raise", "allow", "refuse"}:
            raise ValueError(
                f"on_error is {self.on_error!r}; expected 'raise', 'allow' or 'refuse'"
            )

    def applies_to(self, request: HttpRequest) -> bool:
        inner = getattr(request, "_request", request)  # what Django REST framework wraps
        if not isinstance(inner, HttpRequest):
            raise TypeError(
                f"@throttle was called with {type(request).__name__}; expected a request first "
                "(for a method, use django.utils.decorators.method_decorator)"
            )
        return self.methods is None or request.method in self.methods

    def name(self, request: HttpRequest, view_name: str | None) -> Any:
        """Return the counter's name, or an awaitable of it if `key` is a coroutine function."""
        if self.key is not None:
            return self.key(request)
        if view_name is None:
            raise ImproperlyConfigured(
                "@throttle cannot distinguish this view from others by its name (it is a lambda, or "
                "defined inside a function); pass key="
            )
        return f"{view_name}@{client_address(request)}"

    def refusal(self, request: HttpRequest, found: Limit) -> HttpResponse | None:
        """Return the response to a refused attempt; `None` if it was allowed."""
        if found.allowed:
            return None
        wait_s = max(1, math.ceil(found.retry_after_s))
        message = f"Too many requests: try again in {wait_s} s."
        return _response(request, HTTPStatus.TOO_MANY_REQUESTS, message, wait_s)

    def failed(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the response while the store fails; `None` to allow the request; or raise."""
        if self.on_error == "raise" or is_interruption(error):
            raise error
        if (withheld := _failures.due()) is not None:
            logger.warning(
                "@throttle cannot count: on_error is %r (%s; %d more since the last such line)",
                self.on_error,
                error,
                withheld,
                extra={"event": "throttle_failed"},
            )
        if self.on_error == "allow":
            return None
        message = "Requests cannot be counted at the moment."
        return _response(request, HTTPStatus.SERVICE_UNAVAILABLE, message, None)


def _response(
    request: HttpRequest, status: HTTPStatus, message: str, wait_s: int | None
) -> HttpResponse:
    """Return a short response: JSON if the request's `Accept` prefers it to plain text."""
    response: HttpResponse
    if request.get_preferred_type(["text/plain", "application/json"]) == "application/json":
        fields = {} if wait_s is None else {"retry_after_s": wait_s}
        response = JsonResponse({"error": message, **fields}, status=status)
    else:
        response = HttpResponse(f"{message}\n", content_type="text/plain", status=status)
    response["Cache-Control"] = "no-store"
    if wait_s is not None:
        response["Retry-After"] = str(wait_s)
    return response


def named_by(view: Callable[..., Any]) -> tuple[Any, str]:
    """Return the class or function that a view is named by, and what follows that name.

    A class from `as_view()`, with its actions if it is a viewset of Django REST framework; the class and the
    method of `method_decorator`; or the view itself.
    """
    if isinstance(view, functools.partial) and inspect.ismethod(view.func):
        return type(view.func.__self__), f".{view.func.__name__}"
    found = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if found is None:
        return view, ""
    actions = getattr(view, "actions", None) or {}
    return found, f".{','.join(sorted(set(actions.values())))}" if actions else ""


def throttle(
    rate: int,
    per: float,
    *,
    key: Callable[[HttpRequest], Any] | None = None,
    alias: str = "default",
    methods: Iterable[str] | None = None,
    on_error: str = "raise",
) -> Callable[[V], V]:
    """Allow `rate` requests per `per` seconds and client; respond to others with 429, `Retry-After`.

    `key`: takes the request and returns the full name of the counter (for an async view it may be
    a coroutine function); views with equal names share a counter. The default is the view's name
    and `client_address`. `methods`: only these are counted and refused (GET includes HEAD).

    `on_error`, while the store fails: "raise" its error, "allow" the request uncounted, or "refuse"
    it with 503. The default raises, as `add` and `incr` of these caches do, because either of the
    other two may be wrong: with "allow", an attacker who can make the store fail gets past the
    limit; with "refuse", the view fails together with the store.

    Class-based views: `throttle(…)(MyView.as_view())`, or `method_decorator` (sync views only).
    """
    if isinstance(methods, str):
        raise TypeError(f"methods is {methods!r}; expected a list of methods")
    counted = None if methods is None else {method.upper() for method in methods}
    if counted is not None and "GET" in counted:
        counted.add("HEAD")
    rule = _Rule(rate, per, key, alias, None if counted is None else frozenset(counted), on_error)

    def decorate(view: V) -> V:
        return cast("V", (_athrottled if iscoroutinefunction(view) else _throttled)(rule, view))

    return decorate


def _view_name(view: Callable[..., Any]) -> str | None:
    found, suffix = named_by(view)
    try:
        return f"{name_of(found)}{suffix}"
    except ValueError:
        return None


def _throttled(rule: _Rule, view: Callable[..., Any]) -> Callable[..., Any]:
    view_name = _view_name(view)

    @functools.wraps(view)
    def throttled(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        refusal = None
        if rule.applies_to(request):
            name = rule.name(request, view_name)
            try:
                found = limit(name, rule.rate, rule.per, alias=rule.alias)
            except STORE_FAILED as exc:
                refusal = rule.failed(request, exc)
            else:
                refusal = rule.refusal(request, found)
        response: HttpResponseBase = view(request, *args, **kwargs) if refusal is None else refusal
        return response

    return throttled


def _athrottled(rule: _Rule, view: Callable[..., Any]) -> Callable[..., Any]:
    view_name = _view_name(view)

    @functools.wraps(view)
    async def throttled(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        refusal = None
        if rule.applies_to(request):
            name = rule.name(request, view_name)
            name = await name if inspect.isawaitable(name) else name
            try:
                found = await alimit(name, rule.rate, rule.per, alias=rule.alias)
            except STORE_FAILED as exc:
                refusal = rule.failed(request, exc)
            else:
                refusal = rule.refusal(request, found)
        if refusal is not None:
            return refusal
        response: HttpResponseBase = await view(request, *args, **kwargs)
        return response

    return throttled
