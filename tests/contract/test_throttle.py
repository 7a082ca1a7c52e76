"""`limit()` and `@throttle` on every shared backend."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.throttle import Limit, alimit, limit, throttle
from tests.contract import decorated
from tests.contract.clients import Clients

LONG_S = 1e9  # the next window of this length begins in the year 2033
FACTORY = RequestFactory()


class Now:
    """The wall clock, in a window of 60 s that has just begun."""

    def __init__(self) -> None:
        self.wall_s = clock.wall_s() // 60 * 60

    def __call__(self) -> float:
        return self.wall_s


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    made = Now()
    monkeypatch.setattr(clock, "wall_s", made)
    return made


# -- limit() -------------------------------------------------------------------------------------


def test_exactly_the_rate_is_allowed_across_all_processes_and_threads(
    cache: SharedCache, clients: Clients
) -> None:
    answers = clients.run(decorated.attempt, "name", 500, LONG_S, [1], 50, processes=4, threads=4)
    found = [each for answer in answers for each in answer]
    assert len(found) == 800
    allowed = [each for each in found if each.allowed]
    assert sorted(each.used for each in allowed) == list(range(1, 501))
    assert all(each.remaining == 500 - each.used for each in allowed)
    refused = [each for each in found if not each.allowed]
    assert {(each.used, each.remaining) for each in refused} == {(500, 0)}
    assert limit("name", 500, LONG_S).allowed is False
    assert limit("other name", 500, LONG_S).used == 1


def test_costs_never_add_up_to_more_than_the_rate(cache: SharedCache, clients: Clients) -> None:
    answers = clients.run(
        decorated.attempt, "name", 1000, LONG_S, [7, 1, 3], 30, processes=4, threads=4
    )
    # Each result has the costs in order, so that its index gives the cost of an attempt.
    spent = sum(
        [7, 1, 3][place % 3]
        for answer in answers
        for place, each in enumerate(answer)
        if each.allowed
    )
    assert spent <= 1000
    left = [limit("name", 1000, LONG_S) for _ in range(1000 - spent + 1)]
    assert [each.allowed for each in left] == [True] * (1000 - spent) + [False]


def test_the_next_window_counts_from_zero(cache: SharedCache, now: Now) -> None:
    assert limit("name", 2, 60) == Limit(True, 1, 1, 0.0, 60.0)  # noqa: FBT003
    now.wall_s += 12.5
    assert limit("name", 2, 60) == Limit(True, 2, 0, 0.0, 47.5)  # noqa: FBT003
    assert limit("name", 2, 60) == Limit(False, 2, 0, 47.5, 47.5)  # noqa: FBT003
    now.wall_s += 47.0
    assert limit("name", 2, 60).retry_after_s == 0.5
    now.wall_s += 0.5
    assert limit("name", 2, 60) == Limit(True, 1, 1, 0.0, 60.0)  # noqa: FBT003


def test_a_refused_attempt_costs_nothing(cache: SharedCache, now: Now) -> None:
    assert limit("name", 10, 60, cost=8).used == 8
    assert limit("name", 10, 60, cost=3) == Limit(False, 8, 2, 60.0, 60.0)  # noqa: FBT003
    assert limit("name", 10, 60, cost=2) == Limit(True, 10, 0, 0.0, 60.0)  # noqa: FBT003


def test_other_names_other_times_and_other_aliases_count_apart(
    cache: SharedCache, now: Now, build: Callable[..., SharedCache]
) -> None:
    build("limits", KEY_PREFIX="limits")
    assert limit("name", 5, 60).used == 1
    assert limit("name", 5, 60.0).used == 2
    assert limit("name", 9, 60).used == 3  # a new rate continues from the count
    assert limit("other", 5, 60).used == 1
    assert limit("name", 5, 30).used == 1
    assert limit("name", 5, 60, alias="limits").used == 1
    assert limit("odd name \n" * 100, 5, 60).used == 1


def test_a_counter_goes_soon_after_its_window(cache: SharedCache, now: Now) -> None:
    limit("name", 5, 60)
    [key] = cache.keys("limit:*")
    assert key == f"limit:name:60.0:{now.wall_s // 60:.0f}"
    assert 100 <= (cache.ttl(key) or 0) <= 120


def test_tasks_count_exactly_too(cache: SharedCache) -> None:
    async def attempts() -> list[Limit]:
        return await asyncio.gather(*(alimit("name", 15, LONG_S) for _ in range(40)))

    found = asyncio.run(attempts())
    assert sum(each.allowed for each in found) == 15


class _Evicting:
    """Mix-in: the key is gone before each of the next `evictions` calls of `incr`."""

    evictions = 0

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        if self.evictions:
            self.evictions -= 1
            self.delete(key, version)  # type: ignore[attr-defined]
        found: int = super().incr(key, delta, version)  # type: ignore[misc]
        return found


def _variant(cache: SharedCache, mixin: type) -> Any:
    """Put a variant of the cache, on the same store, behind the alias `variant`."""
    kind: Any = type("Variant", (mixin, type(cache)), {})
    made = kind.__new__(kind)
    vars(made).update(vars(cache))
    caches["variant"] = made  # for this thread, which is all that the test needs
    return made


def test_a_counter_that_is_evicted_between_add_and_incr_is_made_again(cache: SharedCache) -> None:
    evicting = _variant(cache, _Evicting)
    evicting.evictions = 3
    assert limit("name", 5, LONG_S, alias="variant").used == 1
    evicting.evictions = 100
    with pytest.raises(StoreUnavailable, match="'name' was removed 10 times between add and incr"):
        limit("name", 5, LONG_S, alias="variant")


class _Late:
    """Mix-in: others use up the limit between this one's reading and its counting."""

    others: Callable[[], Any] | None = None
    failing = False

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        found = super().get(key, default, version)  # type: ignore[misc]
        if self.others:
            others, self.others = self.others, None
            others()
        return found

    def decr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        if self.failing:
            raise OutcomeUnknown("the answer was lost")
        found: int = super().decr(key, delta, version)  # type: ignore[misc]
        return found


def test_an_overtaken_attempt_is_refused_and_its_cost_is_subtracted(
    cache: SharedCache, now: Now
) -> None:
    late = _variant(cache, _Late)
    late.others = lambda: limit("name", 10, 60, cost=8)
    assert limit("name", 10, 60, cost=3, alias="variant") == Limit(False, 8, 2, 60.0, 60.0)  # noqa: FBT003
    assert limit("name", 10, 60, cost=2) == Limit(True, 10, 0, 0.0, 60.0)  # noqa: FBT003


def test_a_cost_that_cannot_be_subtracted_allows_no_attempt_too_many(
    cache: SharedCache, now: Now
) -> None:
    late = _variant(cache, _Late)
    late.others = lambda: limit("name", 10, 60, cost=8)
    late.failing = True
    assert limit("name", 10, 60, cost=3, alias="variant").allowed is False
    assert limit("name", 10, 60, cost=2) == Limit(False, 10, 0, 60.0, 60.0)  # noqa: FBT003


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": "5/m"}, "rate is '5/m'"),
        ({"rate": True}, "rate is True"),
        ({"per": 0}, "per is 0"),
        ({"per": "m"}, "per is 'm'"),
        ({"per": float("inf")}, "per is inf"),
        ({"per": float("nan")}, "per is nan"),
        ({"cost": 0}, "cost is 0"),
        ({"cost": 6}, "cost is 6"),
        ({"name": ""}, "name is ''"),
        ({"name": 7}, "name is 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_refused_by_name(
    cache: SharedCache, wrong: dict[str, Any], message: str
) -> None:
    arguments = {"name": "name", "rate": 5, "per": 60, **wrong}
    with pytest.raises(ValueError, match=f"{message}; expected"):
        limit(**arguments)
    assert cache.keys("*") == []


def test_caches_that_do_not_count_over_all_workers_are_refused(settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(ImproperlyConfigured, match=r"limit\(\) uses CACHES\['default'\].*LocMem"):
        limit("name", 5, 60)


# -- @throttle -----------------------------------------------------------------------------------


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
    _variant(cache, _Down)

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
    _variant(cache, _Down)

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
