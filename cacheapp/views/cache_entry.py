"""An alias and a key from an address: found or refused, and every answer about them of one shape."""

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

# Short enough for memcached's 250 bytes after prefix and version; nothing that needs quoting.
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,99}")

# What the caller may conclude: "fail", it did not happen; "info", it may have, or may yet.
_ERRORS: dict[type[CacheappError], tuple[HTTPStatus, str]] = {
    StoreUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "fail"),
    OutcomeUnknown: (HTTPStatus.SERVICE_UNAVAILABLE, "info"),
    StoreFull: (HTTPStatus.INSUFFICIENT_STORAGE, "fail"),
    ValueRefused: (HTTPStatus.BAD_REQUEST, "fail"),
    ClearRefused: (HTTPStatus.NOT_IMPLEMENTED, "fail"),
}


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """What a request is about: a key of an alias, or all of the demo's where `key` is empty."""

    cache: DemoCache
    key: str = ""

    def response(self, value: Any, *, hit: bool | None, **extra: Any) -> JsonResponse:
        """Return the answer of this worker.

        `hit`: whether the key was there when the call came, `None` where the call does not tell.
        """
        return json_response(
            HTTPStatus.OK, alias=self.cache.alias, key=self.key, value=value, hit=hit, **extra
        )

    def error(self, status: HTTPStatus, message: str, **extra: Any) -> ApiError:
        """Return the error of this entry, to be raised."""
        fields = {"alias": self.cache.alias, "key": self.key, "value": None, "hit": None, **extra}
        return ApiError(status, message, **fields)

    def error_from(self, exc: CacheappError) -> ApiError:
        """Return the answer to an error of the cache, which names the alias and what to do."""
        status, outcome = next(said for kind, said in _ERRORS.items() if isinstance(exc, kind))
        message = str(exc)
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            alias = self.cache.alias
            message = (
                f"the store of alias {alias!r} is down ({message.rstrip('.')}); see that what "
                f"CACHES[{alias!r}]['LOCATION'] names runs and can be reached, then ask again"
            )
        return self.error(status, message, outcome=outcome)


def with_cache_entry(
    view: Callable[[HttpRequest, CacheEntry], HttpResponseBase],
) -> Callable[..., HttpResponseBase]:
    """Give a view the `CacheEntry` instead of the alias and key of its address."""

    @functools.wraps(view)
    def finding(request: HttpRequest, /, alias: str, key: str = "") -> HttpResponseBase:
        entry = CacheEntry(_demo_cache(alias), key)
        if key and not _KEY.fullmatch(key):
            raise entry.error(
                HTTPStatus.BAD_REQUEST,
                "the key is none that the demo takes; expected 1 to 100 letters, digits "
                "and . _ : ~ -, a letter or digit first",
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
            f"no alias {alias[:40]!r} in CACHES; there are {', '.join(known)}",
        ) from exc
