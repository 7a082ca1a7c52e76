"""The throttle classes of `cacheapp.drf` in real views of Django REST framework, on every shared backend."""

import multiprocessing
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle as TheirThrottle

from cacheapp import drf
from cacheapp.backends.core.shared import SharedCache
from cacheapp.ratelimit import Ratelimited, ratelimit
from cacheapp.throttle import throttle
from tests.contract import drf_views
from tests.contract.clients import Clients
from tests.contract.rates import Now


def test_exactly_ten_of_sixty_requests_pass_in_four_processes(
    cache: SharedCache, settings: Settings
) -> None:
    # A spawned client has no apps, which Django REST framework requires.
    context = multiprocessing.get_context("fork")
    clients = Clients(context, settings.CACHES, settings.CACHEAPP)
    answers = clients.run(drf_views.request, 5, processes=4, threads=3)
    found = [status for answer in answers for status in answer]
    assert (len(found), found.count(200), found.count(429)) == (60, 10, 50)


def test_a_refused_request_gets_429_and_the_time_until_the_next_window(
    cache: SharedCache, now: Now
) -> None:
    now.wall_s += 12.5
    request = APIRequestFactory().get("/")
    view = drf_views.PerMinute.as_view()
    assert [view(request).status_code for _ in range(11)] == [200] * 10 + [429]
    refused = view(request)
    assert (refused.status_code, refused["Retry-After"]) == (429, "48")
    now.wall_s += 47.5
    assert view(request).status_code == 200


def test_a_scope_of_the_view_has_a_rate_and_a_counter_of_its_own(
    cache: SharedCache, now: Now
) -> None:
    request = APIRequestFactory().get("/")
    upload, search = drf_views.Scoped.as_view(), drf_views.Scoped.as_view(throttle_scope="search")
    assert [upload(request).status_code for _ in range(3)] == [200, 200, 429]
    assert [search(request).status_code for _ in range(4)] == [200, 200, 200, 429]
    free = drf_views.Scoped.as_view(throttle_scope=None)
    assert [free(request).status_code for _ in range(4)] == [200] * 4


def test_a_rate_of_zero_allows_nothing_and_names_no_time(cache: SharedCache) -> None:
    refused = drf_views.Closed.as_view()(APIRequestFactory().get("/"))
    assert (refused.status_code, refused.has_header("Retry-After")) == (429, False)


def test_a_cache_object_in_a_subclass_is_refused_with_the_attribute_to_use() -> None:
    with pytest.raises(ImproperlyConfigured, match="cache is set; expected `alias`"):
        type("Own", (drf.AnonRateThrottle,), {"cache": caches["default"]})


def _statuses(view: Any) -> list[int]:
    return [view(APIRequestFactory().get("/")).status_code for _ in range(2)]


def test_each_action_of_a_viewset_has_a_counter(cache: SharedCache, now: Now) -> None:
    for action in ("list", "retrieve"):
        view = drf_views.Books.as_view({"get": action})
        assert _statuses(throttle(1, 60)(view)) == [200, 429]
        limited = ratelimit(key="ip", rate="1/m")(view)
        assert limited(APIRequestFactory().get("/")).status_code == 200
        with pytest.raises(Ratelimited):
            limited(APIRequestFactory().get("/"))


def test_a_decorated_action_of_a_viewset_has_a_counter(cache: SharedCache, now: Now) -> None:
    books = drf_views.LimitedBooks
    assert _statuses(books.as_view({"get": "list"})) == [200, 403]
    assert _statuses(books.as_view({"get": "retrieve"})) == [200, 429]


@pytest.mark.parametrize("name", drf.__all__)
def test_each_class_takes_all_but_the_counting_from_the_framework(name: str) -> None:
    ours: Any = getattr(drf, name)
    assert issubclass(ours, TheirThrottle)
    assert ours.THROTTLE_RATES is TheirThrottle.THROTTLE_RATES
    assert ours.wait is drf.SimpleRateThrottle.wait
