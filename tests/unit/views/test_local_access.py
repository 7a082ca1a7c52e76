import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from cacheapp.demo.namespace import VERSION
from cacheapp.urls import urlpatterns
from cacheapp.views.local_access import demo_only
from cacheapp.views.responses import allow_methods, json_response, read_json

KEY = "/api/cache/locmem/k"


@pytest.fixture(autouse=True)
def _demo_on(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    settings.ALLOWED_HOSTS = ["*"]  # the check must not depend on Django's
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path  # WhiteNoise warns about a missing directory
    caches["locmem"].clear()  # other tests of this process use it too
    yield
    caches["locmem"].clear()


@demo_only
@allow_methods("POST")
def echo(request: HttpRequest) -> HttpResponseBase:
    return json_response(HTTPStatus.OK, body=read_json(request))


def ask(method: str, path: str = KEY, body: Any = None, **meta: Any) -> tuple[int, dict[str, Any]]:
    client = Client(enforce_csrf_checks=True)
    meta = {"HTTP_HOST": "localhost:8000", **meta}
    data = b"" if body is None else json.dumps(body).encode()
    response = client.generic(method, path, data, content_type="application/json", **meta)
    found = json.loads(response.content) if response.content else {}
    return response.status_code, found


def put(**meta: Any) -> tuple[int, dict[str, Any]]:
    return ask("PUT", body={"value": "new"}, **meta)


def stored() -> Any:
    return caches["locmem"].get("cacheapp.demo:k", version=VERSION)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LocalHost:1", "[::1]:65535"])
def test_loopback_names_are_let_in(host: str) -> None:
    assert put(HTTP_HOST=host)[0] == 200
    assert stored() == "new"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.0.0.2",
        "localhost:8000@example.com",
        "localhost, example.com",
        "localhost:",
        "localhost:x",
        "0.0.0.0",  # noqa: S104 (a name that is refused)
        "[::]",
        "example.com:localhost",
        "localhost\n",
    ],
)
def test_other_hosts_are_refused(rf: RequestFactory, host: str) -> None:
    # Not through Django's client: its middleware would refuse some of these first.
    request = rf.post("/", b'{"value": 1}', content_type="application/json", HTTP_HOST=host)
    response = echo(request)
    assert response.status_code == 403
    assert "Host is" in json.loads(response.content)["error"]  # type: ignore[attr-defined]


def test_a_request_without_host_is_refused(rf: RequestFactory) -> None:
    request = rf.get("/")
    assert "HTTP_HOST" not in request.META
    assert echo(request).status_code == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_peers_are_let_in(peer: str) -> None:
    assert put(REMOTE_ADDR=peer)[0] == 200


@pytest.mark.parametrize(
    "peer", ["192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "2001:db8::1", "", "localhost"]
)
def test_other_peers_are_refused(peer: str) -> None:
    status, body = put(REMOTE_ADDR=peer)
    assert (status, stored()) == (403, None)
    assert "loopback address" in body["error"]


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded",
        "X-Real-IP",
        "Via",
        "CF-Connecting-IP",
        "True-Client-IP",
        "X-Client-IP",
    ],
)
def test_requests_through_a_proxy_are_refused(header: str) -> None:
    meta = "HTTP_" + header.upper().replace("-", "_")
    status, body = put(**{meta: "127.0.0.1"})
    assert (status, stored()) == (403, None)
    assert header.lower() in body["error"].lower()


def test_what_nginx_forwards_by_default_is_refused() -> None:
    status, body = put(SERVER_PROTOCOL="HTTP/1.0")
    assert (status, stored()) == (403, None)
    assert "HTTP/1.0" in body["error"]


@pytest.mark.parametrize(
    "meta",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": ""},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "https://example.com"},
        {"HTTP_ORIGIN": "http://localhost"},
        {"HTTP_ORIGIN": "http://localhost:8001"},
        {"HTTP_ORIGIN": "https://localhost:8000"},
        {"HTTP_ORIGIN": "http://127.0.0.1:8000"},
    ],
    ids=lambda meta: "=".join(*meta.items()),
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_changes_from_other_sites_are_refused(method: str, meta: dict[str, str]) -> None:
    caches["locmem"].set("cacheapp.demo:k", "old", version=VERSION)
    body = {"value": "new"} if method == "PUT" else None
    status, answered = ask(method, body=body, **meta)
    assert (status, stored()) == (403, "old")
    assert "cross-site changes are not allowed" in answered["error"]


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "http://localhost:8000"},
        {"HTTP_SEC_FETCH_SITE": "none"},
    ],
    ids=["curl", "own page", "typed in"],
)
def test_changes_from_here_need_no_token(meta: dict[str, str]) -> None:
    assert put(**meta)[0] == 200
    assert stored() == "new"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json"],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_bodies_that_a_form_could_send_are_refused(method: str, content_type: str) -> None:
    caches["locmem"].set("cacheapp.demo:k", "old", version=VERSION)
    response = Client().generic(
        method, KEY, b'{"value": "new"}', content_type=content_type, HTTP_HOST="localhost"
    )
    assert (response.status_code, stored()) == (415, "old")
    assert "expected application/json" in json.loads(response.content)["error"]


def test_other_sites_cannot_get_leave_to_send_json() -> None:
    status, _ = ask(
        "OPTIONS",
        HTTP_ORIGIN="https://example.com",
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="PUT",
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="content-type",
    )
    assert status == 405


_SAMPLES = {
    "int": "1",
    "uuid": "12345678-1234-4321-8765-123456789abc",
    "str": "x",
    "cacheapp_any": "x/\n",
}


_FOR_PROGRAMS = {"livez", "readyz", "metrics"}
"""Routes that decide themselves who is answered: tests/integration/views, tests/integration/telemetry."""


def _addresses(*, api: bool) -> list[str]:
    """Return a URL for each route; an unknown kind of route fails the tests below."""
    routes = [str(pattern.pattern) for pattern in urlpatterns]
    routes = [route for route in routes if route not in _FOR_PROGRAMS]
    found = ["/" + re.sub(r"<(\w+):\w+>", lambda it: _SAMPLES[it[1]], route) for route in routes]
    # The page that shows the API is a page.
    return [path for path in found if (path.startswith("/api/") and path != "/api/docs/") is api]


def _page(method: str, path: str, **meta: str) -> tuple[int, str]:
    client = Client(enforce_csrf_checks=True)
    headers = {"HTTP_HOST": "localhost:8000", "HTTP_ACCEPT": "text/html", **meta}
    response = client.generic(method, path, **headers)  # type: ignore[arg-type]
    return response.status_code, response.get("Location", "")


@pytest.fixture
def uncollected(settings: Settings) -> None:
    """Render pages without collectstatic."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.mark.parametrize("path", _addresses(api=False))
def test_nobody_unknown_sees_a_page_while_the_demo_is_off(
    path: str, settings: Settings, uncollected: None
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False}
    status, place = _page("GET", path)
    assert (status, place.split("?")[0]) == (302, "/login/"), path
    assert _page("POST", path) == (403, "")  # what was typed is not lost, as by a redirect


@pytest.mark.parametrize("path", _addresses(api=False))
def test_no_page_is_shown_through_a_proxy_to_whoever_is_not_known(
    path: str, uncollected: None
) -> None:
    assert _page("GET", path, HTTP_VIA="1.1 proxy")[1].startswith("/login/")
    assert _page("POST", path, HTTP_VIA="1.1 proxy")[0] == 403
    # No page accepts a form without its token, and those that only show something accept none.
    assert _page("POST", path)[0] in {403, 405}


@pytest.mark.parametrize("path", _addresses(api=True))
def test_nobody_unknown_is_answered_while_the_demo_is_off(path: str, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False}
    expected = (404, "the demo is off") if "/demo/" in path else (401, "no valid creden")
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, body = ask(method, path)
        assert (status, body["error"][:15]) == expected, (method, path)


@pytest.mark.parametrize("path", _addresses(api=True))
def test_every_address_is_guarded(path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        assert ask(method, path, HTTP_VIA="1.1 proxy")[0] == 403, (method, path)
