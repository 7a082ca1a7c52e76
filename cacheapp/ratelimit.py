"""`@ratelimit` with the arguments of django-ratelimit, counted exactly across all workers by `limit()`.

It replaces `django_ratelimit.decorators.ratelimit` where that one is imported. Differences: a refused
request costs nothing, the alias is an argument, and a failing store raises its error.
"""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.utils.module_loading import import_string

from cacheapp.canonical import name_of
from cacheapp.rates import alimit, limit
from cacheapp.throttle import client_address, named_by

__all__ = ["ALL", "UNSAFE", "Ratelimited", "is_ratelimited", "ratelimit"]

ALL = None
"""For `method`: all methods."""

UNSAFE = ("DELETE", "PATCH", "POST", "PUT")
"""For `method`: the methods that change something."""

V = TypeVar("V", bound=Callable[..., Any])
Key = str | Callable[[str, HttpRequest], Any]
Rate = str | tuple[int, float] | Callable[[str, HttpRequest], Any] | None

_RATE = re.compile(r"([0-9]+)/([0-9]*)([smhd]?)", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EXPECTED_RATE = "a rate such as '5/m', '100/10m' or (5, 60): a count per s, m, h or d"
_EXPECTED_KEY = (
    "'ip', 'user', 'user_or_ip', 'get:NAME', 'post:NAME', 'header:NAME', a function of group and "
    "request, or its dotted name"
)


class Ratelimited(PermissionDenied):
    """A request was refused: a response with status 403. A view or handler may answer with 429."""

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("too many requests")
        self.retry_after_s = retry_after_s
        """Seconds until the client is allowed again; `None` if there is no such time."""


def ratelimit(
    group: str | None = None,
    key: Key | None = None,
    rate: Rate = None,
    method: str | Iterable[str] | None = ALL,
    block: bool = True,  # noqa: FBT001, FBT002 (the arguments of django-ratelimit)
    *,
    alias: str = "default",
) -> Callable[[V], V]:
    """Refuse requests beyond the rate; set `request.limited`.

    `block=False` only sets `request.limited` and calls the view. Views with the same group, rate,
    methods and value of the key share a counter; the default group is the name of the view, or of its class and method or actions.
    Functions for `key` and `rate` are not async.
    """
    rule = _rule(group, key, rate, method, alias)

    def decorate(view: V) -> V:
        own = dataclasses.replace(rule, group=rule.group or _group_of(view))

        @functools.wraps(view)
        def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            own.apply(request, own.refused_after(request), block=block)
            return view(request, *args, **kwargs)

        @functools.wraps(view)
        async def alimited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            own.apply(request, await own.arefused_after(request), block=block)
            return await view(request, *args, **kwargs)

        return cast("V", alimited if iscoroutinefunction(view) else limited)

    return decorate


ratelimit.ALL, ratelimit.UNSAFE = ALL, UNSAFE  # type: ignore[attr-defined]  # as django-ratelimit has them


def is_ratelimited(
    request: HttpRequest,
    group: str,
    key: Key,
    rate: Rate,
    method: str | Iterable[str] | None = ALL,
    *,
    alias: str = "default",
) -> bool:
    """Count a request; return True if it is beyond the rate. Also sets `request.limited`."""
    rule = _rule(group, key, rate, method, alias)
    found = rule.refused_after(request)
    rule.apply(request, found, block=False)
    return found is not _ALLOWED


_ALLOWED = object()


@dataclasses.dataclass(frozen=True)
class _Rule:
    """The arguments of `ratelimit`."""

    group: str
    key: Key
    rate: Rate
    methods: frozenset[str] | None
    alias: str

    def refused_after(self, request: HttpRequest) -> Any:
        """Count the request; return `_ALLOWED`, or the seconds until it is allowed."""
        found = self._rate_for(request)
        if found is None or found[0] < 1:
            return _ALLOWED if found is None else None
        result = limit(self._name(request, found, _user), *found, alias=self.alias)
        return _ALLOWED if result.allowed else result.retry_after_s

    async def arefused_after(self, request: HttpRequest) -> Any:
        """Async twin of `refused_after`."""
        found = self._rate_for(request)
        if found is None or found[0] < 1:
            return _ALLOWED if found is None else None
        user: Any = None
        if self.key in ("user", "user_or_ip"):
            user = await request.auser() if hasattr(request, "auser") else _user(request)
        result = await alimit(self._name(request, found, lambda _: user), *found, alias=self.alias)
        return _ALLOWED if result.allowed else result.retry_after_s

    @staticmethod
    def apply(request: HttpRequest, found: Any, *, block: bool) -> None:
        """Set `request.limited`; raise `Ratelimited` for a refused request if it is to be blocked."""
        refused = found is not _ALLOWED
        request.limited = refused or getattr(request, "limited", False)  # type: ignore[attr-defined]
        if refused and block:
            raise Ratelimited(found)

    def _rate_for(self, request: HttpRequest) -> tuple[int, float] | None:
        if self.methods is not None and request.method not in self.methods:
            return None
        rate = _called(self.rate, self.group, request) if callable(self.rate) else self.rate
        return None if rate is None else read_rate(rate)

    def _name(
        self, request: HttpRequest, rate: tuple[int, float], user: Callable[[HttpRequest], Any]
    ) -> str:
        methods = "" if self.methods is None else ",".join(sorted(self.methods))
        value = self._value(request, user)
        return "\x1f".join(["ratelimit", self.group, str(rate[0]), methods, value])

    def _value(self, request: HttpRequest, user: Callable[[HttpRequest], Any]) -> str:
        if callable(self.key):
            return str(_called(self.key, self.group, request))
        kind, _, name = self.key.partition(":")
        if kind == "get":
            return f"get:{request.GET.get(name, '')}"
        if kind == "post":
            return f"post:{request.POST.get(name, '')}"
        if kind == "header":
            return f"header:{request.headers.get(name, '')}"
        if kind != "ip":
            found = user(request)
            if kind == "user" or found.is_authenticated:
                return f"user:{found.pk}"
        return f"ip:{client_address(request)}"


def _rule(
    group: str | None,
    key: Key | None,
    rate: Rate,
    method: str | Iterable[str] | None,
    alias: str,
) -> _Rule:
    """Return the arguments, checked where they are written and not at the first request."""
    methods = [method] if isinstance(method, str) else method
    if isinstance(rate, str) and "." in rate:
        rate = cast("Rate", import_string(rate))
    if rate is not None and not callable(rate):
        rate = read_rate(rate)
    if isinstance(key, str) and not _is_known(key):
        if "." not in key:
            raise ImproperlyConfigured(f"key is {key!r}; expected {_EXPECTED_KEY}")
        key = import_string(key)
    for name, given in (("key", key), ("rate", rate)):
        if iscoroutinefunction(given):
            raise ImproperlyConfigured(
                f"{name} is {given!r}; expected a function that is not async"
            )
    if key is None:
        raise ImproperlyConfigured(f"key is missing; expected {_EXPECTED_KEY}")
    counted = None if methods is None else frozenset(each.upper() for each in methods)
    return _Rule(group or "", key, rate, counted, alias)


def _is_known(key: str) -> bool:
    kind, colon, name = key.partition(":")
    return bool(name) if kind in ("get", "post", "header") else not colon and kind in _PLAIN_KEYS


_PLAIN_KEYS = ("ip", "user", "user_or_ip")


def read_rate(rate: Any) -> tuple[int, float]:
    """Return count and seconds of a rate; raise `ImproperlyConfigured`."""
    count, per = -1, 0.0
    if isinstance(rate, tuple) and [type(it) for it in rate] in ([int, int], [int, float]):
        count, per = rate
    elif isinstance(rate, str) and (match := _RATE.fullmatch(rate)):
        count, per = int(match[1]), int(match[2] or 1) * _SECONDS[match[3].lower() or "s"]
    if count < 0 or not 0 < per < math.inf:
        raise ImproperlyConfigured(f"rate is {rate!r}; expected {_EXPECTED_RATE}")
    return count, float(per)


def _called(function: Any, group: str, request: HttpRequest) -> Any:
    found = function(group, request)
    if inspect.isawaitable(found):  # its text would be another key at each request
        if inspect.iscoroutine(found):
            found.close()
        raise ImproperlyConfigured(f"{function!r} returned an awaitable; it must not be async")
    return found


def _group_of(view: Callable[..., Any]) -> str:
    """Return the name of a view; raise `ImproperlyConfigured` if another view may have the same."""
    found, suffix = named_by(view)
    # `method_decorator` first decorates a function of its own, which it never calls.
    if found.__module__ == method_decorator.__module__:
        return ""
    try:
        name_of(found)
    except ValueError as exc:
        raise ImproperlyConfigured(f"the view is {exc}; pass group=") from exc
    return f"{found.__module__}.{found.__qualname__}{suffix}"


def _user(request: HttpRequest) -> Any:
    found = getattr(request, "user", None)
    if found is None:
        raise ImproperlyConfigured(
            "key 'user' needs request.user: add AuthenticationMiddleware to MIDDLEWARE"
        )
    return found
