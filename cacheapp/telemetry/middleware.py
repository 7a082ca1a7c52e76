"""Response headers that show what a request did with caches: `Server-Timing`, and `Cache-Status` (RFC 9211).

They tell a client which values were cached, and how long the caches took: use this where the clients
may know that, for example on a staging site.
"""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import subscribe


class _Usage:
    """What one request did with one alias."""

    def __init__(self) -> None:
        self.operations = self.read = self.found = 0
        self.stored = False
        self.seconds = 0.0

    def add(self, operation: Operation) -> None:
        """Add an operation."""
        self.operations += 1
        self.seconds += operation.seconds - operation.factory_seconds
        if operation.hits is not None:
            self.read += max(1, len(operation.keys))
            self.found += operation.hits
        computed = operation.operation == "get_or_set" and operation.factory_seconds > 0
        self.stored |= operation.error is None and (
            computed or operation.operation in {"set", "set_many", "add"}
        )

    def status(self, alias: str) -> str:
        """Return a member of `Cache-Status`."""
        parts = [alias]
        if self.read:
            parts.append("hit" if self.found == self.read else "fwd=miss")
            parts.append(f'detail="{self.found} of {self.read} keys"')
        if self.stored and "hit" not in parts:
            parts.append("stored")
        return "; ".join(parts)

    def timing(self, alias: str) -> str:
        """Return a metric of `Server-Timing`."""
        return f'cache-{alias};dur={self.seconds * 1000:.3f};desc="{self.operations} operations"'


_usage: ContextVar[dict[str, _Usage] | None] = ContextVar("cacheapp_usage", default=None)


def _note(operation: Operation) -> None:
    usage = _usage.get()
    if usage is not None:
        usage.setdefault(_token(operation.alias), _Usage()).add(operation)


def _token(alias: str) -> str:
    """Return the alias in the characters that both headers allow in a name."""
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in alias)
    return safe if safe[:1].isalpha() else f"a{safe}"


@functools.cache
def _subscribe() -> Callable[[], None]:
    return subscribe(_note)


def _add_headers(response: HttpResponseBase, usage: dict[str, _Usage]) -> None:
    found = list(usage.items())  # a thread that the request started may add an alias meanwhile
    if not found:
        return
    for header, values in (
        ("Server-Timing", [used.timing(alias) for alias, used in found]),
        ("Cache-Status", [used.status(alias) for alias, used in found]),
    ):
        earlier = [response.headers[header]] if header in response.headers else []
        response.headers[header] = ", ".join([*earlier, *values])


@sync_and_async_middleware
def cache_headers(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[Any]]:
    """Add both headers to each response whose request used a cache. A middleware."""
    _subscribe()
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> HttpResponseBase:
            usage: dict[str, _Usage] = {}
            _usage.set(usage)
            try:
                response: HttpResponseBase = await get_response(request)
            finally:
                _usage.set(None)
            _add_headers(response, usage)
            return response

        return amiddleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        usage: dict[str, _Usage] = {}
        _usage.set(usage)
        try:
            response: HttpResponseBase = get_response(request)
        finally:
            _usage.set(None)
        _add_headers(response, usage)
        return response

    return middleware
