"""`@throttle` on every shared backend."""

import asyncio
import json
import logging
import threading
from http import HTTPStatus
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.decorators import method_decorator
from django.views import View

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import StoreUnavailable
from cacheapp.throttle import throttle
from tests.contract.rates import Now, variant

FACTORY = RequestFactory()


@throttle(2, 60)
def view(request: HttpRequest, book: int = 0) -> HttpResponse:
    """Answer with the book."""
    return HttpResponse(f"book {book}")


@throttle(2, 60)
def other_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("other")


@throttle(2, 60)
async def async_view(request: HttpRequest, book: int = 0) -> HttpResponse:
    return HttpResponse(f"book {book}")


@throttle(1, 60, methods=["get", "POST"])
def some_methods(request: HttpRequest) -> HttpResponse:
    return HttpResponse("some")


@throttle(1, 60, key=lambda request: f"shop:{request.GET['user']}")
def by_user(request: HttpRequest) -> HttpResponse:
    return HttpResponse("by user")


@throttle(1, 60, key=lambda request: f"shop:{request.GET['user']}")
def also_by_user(request: HttpRequest) -> HttpResponse:
    return HttpResponse("by user too")


async def _user(request: HttpRequest) -> str:
    await asyncio.sleep(0)
    return f"shop:{request.GET['user']}"


@throttle(1, 60, key=_user)
async def async_by_user(request: HttpRequest) -> HttpResponse:
    return HttpResponse("by user")


class Page(View):
    """A class-based view, throttled where its URL is."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")


class OtherPage(Page):
    """Another one, with the same inherited methods."""


class AsyncPage(View):
    """An async one."""

    async def get(self, _request: HttpRequest) -> HttpResponse:
        return HttpResponse("async page")


@method_decorator(throttle(1, 60), name="dispatch")
class Decorated(View):
    """A class-based view, throttled in place."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        return HttpResponse("decorated")


@method_decorator(throttle(1, 60), name="dispatch")
class OtherDecorated(Page):
    """Another one."""


def _statuses(view: Any, requests: list[HttpRequest]) -> list[int]:
    return [view(request).status_code for request in requests]


def test_a_view_responds_with_429_and_retry_after(cache: SharedCache, now: Now) -> None:
    assert view(FACTORY.get("/"), book=7).content == b"book 7"
    now.wall_s += 17.2
    assert view(FACTORY.get("/")).status_code == HTTPStatus.OK
    refused = view(FACTORY.get("/"))
    assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert refused["Retry-After"] == "43"
    assert refused["Cache-Control"] == "no-store"
    assert refused["Content-Type"] == "text/plain"
    assert refused.content == b"Too many requests: try again in 43 s.\n"
    now.wall_s += 43
    assert view(FACTORY.get("/")).status_code == HTTPStatus.OK


def test_at_the_end_of_a_window_retry_after_is_one_second_not_zero(
    cache: SharedCache, now: Now
) -> None:
    now.wall_s += 59.999
    assert [view(FACTORY.get("/")).get("Retry-After") for _ in range(3)] == [None, None, "1"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain, application/json;q=0.5", "text/plain"),
        ("image/png", "text/plain"),
    ],
)
def test_the_refusal_is_json_if_the_request_prefers_it(
    cache: SharedCache, now: Now, accept: str, content_type: str
) -> None:
    for _ in range(3):
        refused = view(FACTORY.get("/", HTTP_ACCEPT=accept))
    assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert refused["Content-Type"] == content_type
    assert refused["Retry-After"] == "60"
    if content_type == "application/json":
        assert json.loads(refused.content) == {
            "error": "Too many requests: try again in 60 s.",
            "retry_after_s": 60,
        }


def _from(address: str, **meta: str) -> HttpRequest:
    return FACTORY.get("/", REMOTE_ADDR=address, **meta)  # type: ignore[arg-type]


def test_clients_and_views_count_apart(cache: SharedCache, now: Now) -> None:
    assert _statuses(view, [_from("192.0.2.1")] * 3) == [200, 200, 429]
    assert _statuses(view, [_from("192.0.2.2")] * 3) == [200, 200, 429]
    assert _statuses(other_view, [_from("192.0.2.1")] * 3) == [200, 200, 429]


def test_headers_about_the_client_address_are_ignored(cache: SharedCache, now: Now) -> None:
    requests = [
        _from("192.0.2.1", HTTP_X_FORWARDED_FOR=f"198.51.100.{n}", HTTP_X_REAL_IP=f"198.51.100.{n}")
        for n in range(3)
    ]
    assert _statuses(view, requests) == [200, 200, 429]


def test_an_ipv6_client_is_its_network(cache: SharedCache, now: Now) -> None:
    requests = [_from(f"2001:db8:1:2::{n}") for n in range(3)]
    assert _statuses(view, requests) == [200, 200, 429]
    assert view(_from("2001:db8:1:3::1")).status_code == HTTPStatus.OK
    mapped = [_from("::ffff:192.0.2.1"), _from("192.0.2.1"), _from("::ffff:192.0.2.1")]
    assert _statuses(view, mapped) == [200, 200, 429]
    assert view(_from("::ffff:192.0.2.2")).status_code == HTTPStatus.OK


@pytest.mark.parametrize("address", ["", "unix:"])
def test_without_an_address_clients_do_not_share_a_counter(
    cache: SharedCache, address: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"REMOTE_ADDR is '{address}'.* pass key="):
        view(_from(address))


def test_views_with_equal_keys_share_a_counter(cache: SharedCache, now: Now) -> None:
    ann, bob = FACTORY.get("/?user=ann"), FACTORY.get("/?user=bob")
    assert _statuses(by_user, [ann, ann, bob]) == [200, 429, 200]
    assert _statuses(also_by_user, [ann, bob]) == [429, 429]


def test_only_the_methods_named_are_counted_and_head_comes_with_get(
    cache: SharedCache, now: Now
) -> None:
    requests = [FACTORY.put("/"), FACTORY.put("/"), FACTORY.head("/"), FACTORY.get("/")]
    assert _statuses(some_methods, [*requests, FACTORY.post("/"), FACTORY.put("/")]) == [
        *[200, 200, 200, 429],
        *[429, 200],
    ]


async def test_an_async_view_is_throttled_too(cache: SharedCache, now: Now) -> None:
    factory = AsyncRequestFactory()
    assert (await async_view(factory.get("/"), book=7)).content == b"book 7"
    responses = await asyncio.gather(*(async_view(factory.get("/")) for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [200, 429, 429, 429, 429]
    assert {response.get("Retry-After") for response in responses} == {None, "60"}


async def test_the_key_of_an_async_view_may_be_a_coroutine_function(
    cache: SharedCache, now: Now
) -> None:
    request = AsyncRequestFactory().get("/?user=ann")
    assert (await async_by_user(request)).status_code == HTTPStatus.OK
    assert (await async_by_user(request)).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_class_based_views_count_apart(cache: SharedCache, now: Now) -> None:
    for page in (throttle(1, 60)(Page.as_view()), throttle(1, 60)(OtherPage.as_view())):
        assert _statuses(page, [FACTORY.get("/")] * 2) == [200, 429]
    for page in (Decorated.as_view(), OtherDecorated.as_view()):
        assert page(FACTORY.get("/")).status_code == HTTPStatus.OK
    assert Decorated.as_view()(FACTORY.get("/")).status_code == HTTPStatus.TOO_MANY_REQUESTS


async def test_an_async_class_based_view_is_throttled_where_its_url_is(
    cache: SharedCache, now: Now
) -> None:
    page = throttle(1, 60)(AsyncPage.as_view())
    request = AsyncRequestFactory().get("/")
    assert (await page(request)).content == b"async page"  # type: ignore[misc]
    assert (await page(request)).status_code == HTTPStatus.TOO_MANY_REQUESTS  # type: ignore[misc]


def test_a_view_without_a_name_of_its_own_needs_a_key(cache: SharedCache) -> None:
    def local(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("local")

    nameless = throttle(1, 60)(local)
    with pytest.raises(ImproperlyConfigured, match=r"by its name .* pass key="):
        nameless(FACTORY.get("/"))
    named = throttle(1, 60, key=lambda _request: "local")(local)
    assert named(FACTORY.get("/")).status_code == HTTPStatus.OK


def test_a_method_under_the_bare_decorator_is_refused(cache: SharedCache) -> None:
    with pytest.raises(TypeError, match=r"called with Page; expected a request .*method_decorator"):
        throttle(1, 60)(Page.get)(Page(), FACTORY.get("/"))


class _Down:
    """Mix-in: the store cannot be reached."""

    def add(self, *_args: Any, **_kwargs: Any) -> bool:
        raise StoreUnavailable("no server")


def _answer_while_down(cache: SharedCache, **options: Any) -> HttpResponse:
    variant(cache, _Down)

    @throttle(1, 60, key=lambda _: "x", alias="variant", **options)
    def served(request: HttpRequest) -> HttpResponse:
        return HttpResponse("served")

    return served(FACTORY.get("/"))


def test_while_the_store_is_down_a_view_raises_by_default(cache: SharedCache) -> None:
    with pytest.raises(StoreUnavailable, match="no server"):
        _answer_while_down(cache)
    assert _answer_while_down(cache, on_error="allow").content == b"served"
    refused = _answer_while_down(cache, on_error="refuse")
    assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused.content == b"Requests cannot be counted at the moment.\n"
    assert "Retry-After" not in refused


async def test_an_async_view_may_be_allowed_without_its_store(
    cache: SharedCache, caplog: pytest.LogCaptureFixture
) -> None:
    variant(cache, _Down)

    @throttle(1, 60, key=lambda _: "x", alias="variant", on_error="allow")
    async def served(request: HttpRequest) -> HttpResponse:
        return HttpResponse("served")

    with caplog.at_level(logging.WARNING):
        assert (await served(AsyncRequestFactory().get("/"))).content == b"served"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": "5/m"}, "rate is '5/m'"),
        ({"methods": "POST"}, "methods is 'POST'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"key": "ip"}, "key is 'ip'"),
    ],
    ids=["rate", "methods", "on_error", "key"],
)
def test_wrong_arguments_of_the_decorator_are_refused_by_name(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{message}; expected"):
        throttle(**{"rate": 5, "per": 60, **wrong})


def test_threads_serving_one_view_admit_exactly_the_rate(cache: SharedCache, now: Now) -> None:
    statuses: list[int] = []

    def serve() -> None:
        statuses.extend(_statuses(view, [FACTORY.get("/")] * 10))

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 2 + [429] * 38
