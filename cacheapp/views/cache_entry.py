"""Look up the alias and key in a URL, and build all responses about them in one format."""

import dataclasses
import functools
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.core.cache import InvalidCacheBackendError
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from cacheapp.demo.namespace import DemoCache, aliases
from cacheapp.errors import (
    CacheappError,
    ClearRefused,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    ValueRefused,
)
from cacheapp.views.responses import ApiError, json_response

# With prefix and version within memcached's 250 bytes; no character that needs quoting.
KEY_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:~-]{0,99}"
_KEY = re.compile(KEY_PATTERN)

# What the caller may conclude: "fail", it did not happen; "info", it may have happened or may still.
_ERRORS: dict[type[CacheappError], tuple[HTTPStatus, str]] = {
    StoreUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "fail"),
    OutcomeUnknown: (HTTPStatus.SERVICE_UNAVAILABLE, "info"),
    StoreFull: (HTTPStatus.INSUFFICIENT_STORAGE, "fail"),
    ValueRefused: (HTTPStatus.BAD_REQUEST, "fail"),
    ClearRefused: (HTTPStatus.NOT_IMPLEMENTED, "fail"),
}


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """The subject of a request: a key of an alias, or all of the demo's keys if `key` is empty."""

    cache: DemoCache
    key: str = ""

    def response(self, value: Any, *, hit: bool | None, **extra: Any) -> JsonResponse:
        """Return a success response.

        `hit` is True if the key existed before the call, `None` if the call does not reveal it.
        """
        return json_response(
            HTTPStatus.OK, alias=self.cache.alias, key=self.key, value=value, hit=hit, **extra
        )

    def error(self, status: HTTPStatus, message: str, **extra: Any) -> ApiError:
        """Return an error about this entry, to be raised."""
        fields = {"alias": self.cache.alias, "key": self.key, "value": None, "hit": None, **extra}
        return ApiError(status, message, **fields)

    def error_from(self, exc: CacheappError) -> ApiError:
        """Return the error response for an error of the cache, with the alias and what to do."""
        status, outcome = next(entry for kind, entry in _ERRORS.items() if isinstance(exc, kind))
        message = str(exc)
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            alias = self.cache.alias
            message = (
                f"the store of alias {alias!r} is down ({message.rstrip('.')}); check that "
                f"CACHES[{alias!r}]['LOCATION'] is running and reachable, then try again"
            )
        return self.error(status, message, outcome=outcome)


def with_cache_entry(
    view: Callable[[HttpRequest, CacheEntry], HttpResponseBase],
) -> Callable[..., HttpResponseBase]:
    """Pass a view the `CacheEntry` instead of the alias and key of its URL."""

    @functools.wraps(view)
    def finding(request: HttpRequest, /, alias: str, key: str = "") -> HttpResponseBase:
        entry = CacheEntry(_demo_cache(alias), key)
        if key and not _KEY.fullmatch(key):
            raise entry.error(
                HTTPStatus.BAD_REQUEST,
                "invalid key; expected 1 to 100 letters, digits and . _ : ~ -, "
                "starting with a letter or digit",
            )
        try:
            return view(request, entry)
        except tuple(_ERRORS) as exc:
            raise entry.error_from(exc) from exc

    return finding


def _demo_cache(alias: str) -> DemoCache:
    try:
        return DemoCache(alias)
    except InvalidCacheBackendError as exc:
        known = aliases()
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            f"no alias {alias[:40]!r} in CACHES; expected one of {', '.join(known)}",
        ) from exc
