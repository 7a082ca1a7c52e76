"""`@ratelimit`, with the arguments of django-ratelimit, on every shared backend."""

import functools
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.views import View

from cacheapp.backends.core.shared import SharedCache
from cacheapp.ratelimit import ALL, UNSAFE, Ratelimited, is_ratelimited, ratelimit, read_rate
from tests.contract.rates import Now

FACTORY = RequestFactory()


def by_shop(group: str, request: HttpRequest) -> str:
    return f"{group}:{request.GET['shop']}"


def rate_of(_group: str, request: HttpRequest) -> str | None:
    return None if request.GET.get("staff") else "1/m"


@ratelimit(key="ip", rate="2/m")
def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


@ratelimit(key="user_or_ip", rate="1/m", block=False)
async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("late" if request.limited else "fine")  # type: ignore[attr-defined]


def _passes(decorated: Any, *requests: HttpRequest) -> list[bool]:
    found = []
    for request in requests:
        try:
            decorated(request)
        except Ratelimited:
            found.append(False)
        else:
            found.append(True)
    return found


def test_requests_beyond_the_rate_are_forbidden_until_the_next_window(
    cache: SharedCache, now: Now
) -> None:
    assert _passes(view, *[FACTORY.get("/") for _ in range(4)]) == [True, True, False, False]
    with pytest.raises(PermissionDenied) as refused:
        view(FACTORY.get("/"))
    assert refused.value.retry_after_s is not None  # type: ignore[attr-defined]
    assert 0 < refused.value.retry_after_s <= 60  # type: ignore[attr-defined]
    assert _passes(view, FACTORY.get("/", REMOTE_ADDR="192.0.2.7")) == [True]
    now.wall_s += 60
    assert _passes(view, FACTORY.get("/")) == [True]


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("get:q", FACTORY.get("/?q=a"), FACTORY.get("/?q=b")),
        ("post:name", FACTORY.post("/", {"name": "a"}), FACTORY.post("/", {"name": "b"})),
        ("header:X-Shop", FACTORY.get("/", headers={"X-Shop": "a"}), FACTORY.get("/")),
        (by_shop, FACTORY.get("/?shop=a"), FACTORY.get("/?shop=b")),
        (f"{__name__}.by_shop", FACTORY.get("/?shop=a"), FACTORY.get("/?shop=b")),
    ],
    ids=["get", "post", "header", "function", "dotted-name"],
)
def test_each_value_of_the_key_has_a_counter(
    cache: SharedCache, now: Now, key: Any, first: HttpRequest, second: HttpRequest
) -> None:
    limited = ratelimit(key=key, rate="1/m", group="own")(lambda _request: HttpResponse())
    assert _passes(limited, first, first, second, second) == [True, False, True, False]


def test_users_are_told_apart_by_their_primary_key(cache: SharedCache, now: Now) -> None:
    def request(pk: int | None) -> HttpRequest:
        made = FACTORY.get("/")
        made.user = SimpleNamespace(pk=pk, is_authenticated=pk is not None)  # type: ignore[assignment]
        return made

    limited = ratelimit(key="user_or_ip", rate="1/m", group="own")(lambda _request: HttpResponse())
    found = _passes(limited, request(1), request(1), request(2), request(None), request(None))
    assert found == [True, False, True, True, False]


def test_only_the_named_methods_count_and_a_group_is_shared(cache: SharedCache, now: Now) -> None:
    def answer(_request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    one, other = (
        ratelimit(group="both", key="ip", rate="1/m", method=UNSAFE)(answer) for _ in range(2)
    )
    assert _passes(one, *[FACTORY.get("/") for _ in range(3)]) == [True] * 3
    assert _passes(one, FACTORY.post("/")) == [True]
    assert _passes(other, FACTORY.put("/")) == [False]


def test_a_function_decides_the_rate_and_0_refuses_all(cache: SharedCache, now: Now) -> None:
    limited = ratelimit(key="ip", rate=rate_of, group="own")(lambda _request: HttpResponse())
    assert _passes(limited, *[FACTORY.get("/?staff=1") for _ in range(3)]) == [True] * 3
    assert _passes(limited, FACTORY.get("/"), FACTORY.get("/")) == [True, False]
    closed = ratelimit(key="ip", rate="0/s", group="closed")(lambda _request: HttpResponse())
    assert _passes(closed, FACTORY.get("/")) == [False]


async def test_an_async_view_learns_that_it_is_late(cache: SharedCache, now: Now) -> None:
    def request() -> HttpRequest:
        made = AsyncRequestFactory().get("/")

        async def auser() -> Any:
            return SimpleNamespace(pk=None, is_authenticated=False)

        made.auser = auser
        return made

    found = [(await async_view(request())).content for _ in range(3)]
    assert found == [b"fine", b"late", b"late"]


def test_exactly_the_rate_passes_of_many_threads(cache: SharedCache, now: Now) -> None:
    limited = ratelimit(key="ip", rate="10/h", group="own")(lambda _request: HttpResponse())
    found: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(_passes(limited, *[FACTORY.get("/") for _ in range(5)]))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), found.count(True)) == (30, 10)


def test_a_call_inside_a_view_counts_too(cache: SharedCache, now: Now) -> None:
    request = FACTORY.get("/")
    found = [is_ratelimited(request, "own", "ip", "1/m", ALL) for _ in range(2)]
    assert found == [False, True]
    assert request.limited is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("5/m", (5, 60)),
        ("100/10M", (100, 600)),
        ("3/s", (3, 1)),
        ("3/", (3, 1)),
        ("1/2d", (1, 172800)),
        ((4, 30), (4, 30)),
    ],
    ids=str,
)
def test_a_rate_is_read_as_by_django_ratelimit(rate: Any, expected: tuple[int, float]) -> None:
    assert read_rate(rate) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "ip", "rate": "often"}, "rate is 'often'"),
        ({"key": "ip", "rate": "5/0m"}, "rate is '5/0m'"),
        ({"key": "ip", "rate": (5, 0)}, r"rate is \(5, 0\)"),
        ({"key": "ip", "rate": ("5", 60)}, "rate is "),
        ({"key": "get", "rate": "5/m"}, "key is 'get'"),
        ({"key": "address", "rate": "5/m"}, "key is 'address'"),
        ({"rate": "5/m"}, "key is missing"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_an_error_where_it_is_written(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        ratelimit(**arguments)


async def async_key(_group: str, _request: HttpRequest) -> str:
    return "same"


def returns(function: Any, *given: Any) -> Any:
    return function(*given)


@pytest.mark.parametrize("name", ["key", "rate"])
def test_async_functions_for_key_and_rate_are_refused(cache: SharedCache, name: str) -> None:
    arguments: dict[str, Any] = {"key": "ip", "rate": "1/m", "group": "own"}
    with pytest.raises(ImproperlyConfigured, match=f"^{name} is .*; expected a function"):
        ratelimit(**{**arguments, name: async_key})
    late = ratelimit(**{**arguments, name: functools.partial(returns, async_key)})(view)
    with pytest.raises(ImproperlyConfigured, match="returned an awaitable"):
        late(FACTORY.get("/"))


class One(View):
    """A view."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Respond."""
        return HttpResponse()


class Two(One):
    """Another view."""


def test_each_class_based_view_has_a_counter(cache: SharedCache, now: Now) -> None:
    one, two = (ratelimit(key="ip", rate="1/m")(it.as_view()) for it in (One, Two))
    assert _passes(one, FACTORY.get("/"), FACTORY.get("/")) == [True, False]
    assert _passes(two, FACTORY.get("/"), FACTORY.get("/")) == [True, False]


def test_a_view_without_a_name_of_its_own_needs_a_group() -> None:
    with pytest.raises(ImproperlyConfigured, match="pass group="):
        ratelimit(key="ip", rate="1/m")(lambda _request: HttpResponse())
