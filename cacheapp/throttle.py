"""Rate limits that count exactly over all workers: `limit()` for code, `@throttle` for views.

Invariant: of the attempts that a window admits, the costs add up to at most `rate`. The store's
`incr` holds it, one atomic step for all workers: whoever's sum is above `rate` is refused. Windows
are fixed, [n * per, (n + 1) * per) of the wall clock, each with a counter of its own.

Their known weakness: `rate` attempts at the end of one window and `rate` at the beginning of the
next are twice the rate within a moment. Where that matters, ask for a smaller rate over a shorter
time as well. What the promise rests on: the store keeps the counter (no eviction, no `clear`: give
limits an alias of their own where either may happen) and hosts agree about the time; one that is
late or early counts in another window near a boundary.
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

from cacheapp import clock
from cacheapp.backends.by_alias import shared_cache
from cacheapp.backends.on_error import STORE_FAILED
from cacheapp.backends.quiet import Quiet
from cacheapp.backends.shared import SharedCache
from cacheapp.backends.twins import in_thread
from cacheapp.canonical import key_part, name_of
from cacheapp.errors import CacheappError, StoreUnavailable

logger = logging.getLogger(__name__)
_quiet = Quiet()

V = TypeVar("V", bound=Callable[..., Any])

_KEPT_S = 60.0  # a counter outlives its window by this: hosts' clocks may differ, threads may pause
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Limit:
    """What became of an attempt."""

    allowed: bool
    used: int
    """Cost counted in this window, with this attempt if it was allowed."""

    remaining: int
    retry_after_s: float
    """0 if it was allowed; else the time until the next window."""

    reset_s: float
    """Time until the next window."""


def limit(name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1) -> Limit:
    """Count an attempt, unless more than `rate` would be counted within `per` seconds.

    All who give the same `name` and `per` share a counter. A refused attempt costs nothing: whoever
    goes on trying is admitted as soon as the next window begins. With costs above 1, one that is
    being refused may, for an instant, keep out a cheaper one that had fitted.

    Raises what the store raises: `StoreUnavailable` (not counted), `OutcomeUnknown` (perhaps
    counted).
    """
    _check(rate, per, cost)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name is {name!r}; expected a str that is not empty")
    cache = shared_cache(alias, "limit()")
    shown = key_part(name.encode("utf-8", "surrogatepass"))
    for _ in range(_TRIES):
        now_s = clock.wall_s()
        window = math.floor(now_s / per)
        reset_s = max((window + 1) * per - now_s, 0.0)
        key = f"limit:{shown}:{float(per)!r}:{window}"
        if (counted := _count(cache, key, rate, cost, reset_s + _KEPT_S)) is not None:
            allowed, used = counted
            return Limit(allowed, used, rate - used, 0.0 if allowed else reset_s, reset_s)
    raise StoreUnavailable(
        f"the counter of limit {name!r} was gone {_TRIES} times between add and incr: "
        f"CACHES[{alias!r}] evicts what was just written, or somebody keeps clearing it"
    )


async def alimit(
    name: str, rate: int, per: float, *, alias: str = "default", cost: int = 1
) -> Limit:
    """Do what `limit` does."""
    found: Limit = await in_thread(limit, name, rate, per, alias=alias, cost=cost)
    return found


def _check(rate: int, per: float, cost: int) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise ValueError(f"rate is {rate!r}; expected a whole number of at least 1")
    number = isinstance(per, int | float) and not isinstance(per, bool)
    if not number or not 0 < per < math.inf:
        raise ValueError(f"per is {per!r}; expected a number of seconds above 0")
    if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= rate:
        raise ValueError(f"cost is {cost!r}; expected a whole number from 1 to the rate, {rate}")


def _count(
    cache: SharedCache, key: str, rate: int, cost: int, ttl_s: float
) -> tuple[bool, int] | None:
    """Return whether the attempt is allowed and what is counted; `None` if the counter went away."""
    found = cache.get(key)
    if found is None:
        cache.add(key, 0, ttl_s)
        found = 0
    if found + cost > rate:  # a read is all that a refused attempt costs the store, nearly always
        return False, min(found, rate)
    try:
        total = cache.incr(key, cost)
    except ValueError:
        return None
    if total <= rate:
        return True, total
    # Somebody was faster since the read. Whoever dies here leaves its cost counted: too few are
    # admitted then, never too many.
    try:
        cache.decr(key, cost)
    except (ValueError, CacheappError) as exc:
        logger.debug("the cost of a refused attempt stays counted: %s", exc)
    return False, min(total - cost, rate)


def client_address(request: HttpRequest) -> str:
    """Return who is connected: an IPv4 address, or the /64 network that an IPv6 client has.

    Only what the server saw. `X-Forwarded-For` and the like are never believed: anybody can send
    them. Behind a proxy this is the proxy, the same for all clients: there, let the proxy's own
    trusted middleware set `REMOTE_ADDR`, or pass `key=`.
    """
    found = request.META.get("REMOTE_ADDR", "")
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        raise ImproperlyConfigured(
            f"REMOTE_ADDR is {found!r}; expected an IP address to tell clients apart (a unix socket "
            "has none); pass key= to @throttle"
        ) from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    # One IPv6 client has 2**64 addresses to choose from.
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What `throttle` was told."""

    rate: int
    per: float
    key: Callable[[HttpRequest], Any] | None
    alias: str
    methods: frozenset[str] | None
    on_error: str

    def __post_init__(self) -> None:
        _check(self.rate, self.per, 1)
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key is {self.key!r}; expected a function of the request")
        if self.on_error not in {"raise", "allow", "refuse"}:
            raise ValueError(
                f"on_error is {self.on_error!r}; expected 'raise', 'allow' or 'refuse'"
            )

    def applies_to(self, request: HttpRequest) -> bool:
        if not isinstance(request, HttpRequest):
            raise TypeError(
                f"@throttle was called with {type(request).__name__}; expected a request first "
                "(for a method, use django.utils.decorators.method_decorator)"
            )
        return self.methods is None or request.method in self.methods

    def name(self, request: HttpRequest, view_name: str | None) -> Any:
        """Return whose attempt it is, or an awaitable of it where `key` is a coroutine function."""
        if self.key is not None:
            return self.key(request)
        if view_name is None:
            raise ImproperlyConfigured(
                "@throttle cannot tell this view from others by its name (a lambda, or defined "
                "inside a function); pass key="
            )
        return f"{view_name}@{client_address(request)}"

    def refusal(self, request: HttpRequest, found: Limit) -> HttpResponse | None:
        """Return the answer to a refused attempt."""
        if found.allowed:
            return None
        wait_s = max(1, math.ceil(found.retry_after_s))
        message = f"Too many requests: try again in {wait_s} s."
        return _answer(request, HTTPStatus.TOO_MANY_REQUESTS, message, wait_s)

    def failed(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the answer while the store fails; `None` to go on; raise where that was asked."""
        if self.on_error == "raise":
            raise error
        if (withheld := _quiet.due()) is not None:
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
        return _answer(request, HTTPStatus.SERVICE_UNAVAILABLE, message, None)


def _answer(
    request: HttpRequest, status: HTTPStatus, message: str, wait_s: int | None
) -> HttpResponse:
    """Return a short answer: JSON where the request names it and likes nothing better."""
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


def _class_of(view: Callable[..., Any]) -> type | None:
    """Return the class behind `as_view()`, or behind what `method_decorator` passes."""
    found: type | None = getattr(view, "view_class", None)
    if found is None and isinstance(view, functools.partial) and inspect.ismethod(view.func):
        found = type(view.func.__self__)
    return found


def throttle(
    rate: int,
    per: float,
    *,
    key: Callable[[HttpRequest], Any] | None = None,
    alias: str = "default",
    methods: Iterable[str] | None = None,
    on_error: str = "raise",
) -> Callable[[V], V]:
    """Admit `rate` requests per `per` seconds and client; answer the others 429, `Retry-After`.

    `key`: takes the request and returns the whole name of the counter (for an async view it may be
    a coroutine function); views whose names are equal share it. By default the view and
    `client_address`. `methods`: only these count and are refused (HEAD comes with GET).

    `on_error`, while the store fails: "raise" its error, "allow" the request uncounted, or "refuse"
    it with 503. By default it raises, as `add` and `incr` of these caches do, because no answer
    would be true: "allow" opens what the limit protects to whoever can bring the store down, and
    "refuse" takes the view down with it. Which is worse, only the view's author knows.

    Class-based views: `throttle(…)(MyView.as_view())`, or `method_decorator`; for async ones
    the former.
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
    try:
        return name_of(_class_of(view) or view)
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
        answer: HttpResponseBase = view(request, *args, **kwargs) if refusal is None else refusal
        return answer

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
        answer: HttpResponseBase = await view(request, *args, **kwargs)
        return answer

    return throttled
