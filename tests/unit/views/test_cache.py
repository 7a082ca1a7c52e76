import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.test import Client
from django_redis.exceptions import ConnectionInterrupted
from pytest_django.fixtures import Settings

from cacheapp.demo.namespace import VERSION, aliases
from cacheapp.demo.origin import content

PATH = "/api/cache/locmem/k"


@pytest.fixture(autouse=True)
def _demo_on(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
    caches["locmem"].clear()  # other tests of this process use it too
    yield
    caches["locmem"].clear()


def send(method: str, path: str = PATH, data: bytes = b"", **meta: Any) -> Any:
    meta = {"content_type": "application/json", "HTTP_HOST": "localhost", **meta}
    return Client().generic(method, path, data, **meta)


def ask(method: str, path: str = PATH, body: Any = None) -> tuple[int, dict[str, Any]]:
    response = send(method, path, b"" if body is None else json.dumps(body).encode())
    return response.status_code, json.loads(response.content)


def stored(key: str = "k") -> Any:
    return caches["locmem"].get(f"cacheapp.demo:{key}", version=VERSION)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "a JSON list; expected an object"),
        (b"null", "a JSON NoneType"),
        (b'{"value": 1, "value": 2}', "duplicate name 'value'"),
        (b'{"value": {"a": 1, "a": 1}}', "duplicate name 'a'"),
        (b'{"value": NaN}', "NaN is not a valid JSON number"),
        (b'{"value": -Infinity}', "-Infinity is not a valid JSON number"),
        (b'{"value": 1e999}', "1e999 is not a valid JSON number"),
        (b'{"value": "\xff"}', "can't decode byte 0xff"),
        ('{"value": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"value": 1} x', "not valid JSON"),
        (b'{"value": ' + b"[" * 101 + b"]" * 101 + b"}", "nested more than 100"),
        (b'{"value": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not valid JSON"),
        (b'{"value": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"value": ' + b"9" * 1001 + b"}", "a number of 1001 digits; expected at most 1000"),
        (b'{"timeout": 5}', "'value' is missing"),
        (b'{"value": 1, "ttl": 5}', "'ttl' is not a field; expected one of timeout, value"),
        (b'{"value": 1, "timeout": -1}', "'timeout' is -1; expected seconds from 0"),
        (b'{"value": 1, "timeout": true}', "'timeout' is True; expected seconds"),
        (b'{"value": 1, "timeout": "5"}', "'timeout' is '5'; expected seconds"),
        (b'{"value": 1, "timeout": 1e12}', "expected seconds from 0 to 315360000"),
        (b'{"value": 1, "timeout": []}', "'timeout' is []; expected seconds"),
    ],
    ids=lambda case: case[:40] if isinstance(case, bytes) else "",
)
def test_a_bad_body_is_refused_and_nothing_changed(data: bytes, complaint: str) -> None:
    ask("PUT", body={"value": "old"})
    response = send("PUT", data=data)
    assert response.status_code == 400
    assert complaint in json.loads(response.content)["error"]
    assert stored() == "old"


@pytest.mark.parametrize(
    ("meta", "status"),
    [
        ({"CONTENT_LENGTH": "65537"}, 413),
        ({"CONTENT_LENGTH": "99999999999"}, 413),
        ({"CONTENT_LENGTH": "x"}, 400),
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}, 411),
        ({"CONTENT_LENGTH": "100", "wsgi.input": io.BytesIO(b'{"value": 1}')}, 400),
        ({"CONTENT_LENGTH": "0"}, 400),
    ],
    ids=["one too many", "huge", "no number", "negative", "chunked", "broken off", "none"],
)
def test_a_body_of_bad_length_is_refused(meta: dict[str, Any], status: int) -> None:
    response = send("PUT", data=b'{"value": 1}', **meta)
    assert (response.status_code, stored()) == (status, None)
    assert "error" in json.loads(response.content)


def test_a_body_of_64_kib_is_taken() -> None:
    value = "x" * (64 * 1024 - len('{"value": ""}'))
    assert send("PUT", data=json.dumps({"value": value}).encode()).status_code == 200
    assert stored() == value


def test_a_body_beyond_the_projects_own_limit_is_refused(settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 20
    assert ask("PUT", body={"value": "x" * 20})[0] == 413
    assert stored() is None


@pytest.mark.parametrize(
    "key",
    ["a" * 101, "a/b", "%20", ".", "-a", "_a", "a%20b", "a%00", "%C3%A9", "a*", "a%0A", "a?b%3F"],
)
def test_a_bad_key_is_refused(key: str) -> None:
    if key == "a?b%3F":  # the query is not part of the key
        assert ask("PUT", f"/api/cache/locmem/{key}", {"value": 1})[1]["key"] == "a"
        return
    status, body = ask("PUT", f"/api/cache/locmem/{key}", {"value": 1})
    assert status == 400
    assert "expected 1 to 100 letters" in body["error"]
    assert (body["alias"], body["value"], body["hit"]) == ("locmem", None, None)


@pytest.mark.parametrize("key", ["a", "A1", "a" * 100, "a.b_c:d~e-f", "incr"])
def test_a_good_key_is_taken(key: str) -> None:
    assert ask("PUT", f"/api/cache/locmem/{key}", {"value": 1})[0] == 200
    assert stored(key) == 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", PATH, "GET, PUT, DELETE, HEAD"),
        ("PATCH", PATH, "GET, PUT, DELETE, HEAD"),
        ("GET", f"{PATH}/incr", "POST"),
        ("PUT", f"{PATH}/incr", "POST"),
        ("DELETE", f"{PATH}/touch", "POST"),
        ("GET", f"{PATH}/add", "POST"),
        ("GET", "/api/cache/locmem", "DELETE"),
        ("POST", "/api/worker", "GET, HEAD"),
        ("DELETE", "/api/", "GET, HEAD"),
        ("PUT", "/api/demo/file/1", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_refused(method: str, path: str, allowed: str) -> None:
    response = send(method, path, b'{"value": 1}')
    assert (response.status_code, response["Allow"]) == (405, allowed)
    assert f"method {method} is not allowed here" in json.loads(response.content)["error"]
    assert stored() is None


def test_an_unknown_alias_is_refused() -> None:
    status, body = ask("PUT", "/api/cache/nosuch/k", {"value": 1})
    assert status == 404
    assert body["error"] == "no alias 'nosuch' in CACHES; expected one of lmdb, disk, locmem, redis"


def test_an_unknown_address_is_refused_as_json() -> None:
    assert ask("GET", "/api/nothing/here")[0] == 404


def test_a_cached_none_is_a_hit() -> None:
    assert ask("GET")[1]["hit"] is False
    ask("PUT", body={"value": None})
    assert ask("GET")[1] | {"pid": 0} == {
        "pid": 0,
        "alias": "locmem",
        "key": "k",
        "value": None,
        "hit": True,
    }


def test_incr_never_creates_a_key_unless_told_with_what() -> None:
    status, body = ask("POST", f"{PATH}/incr")
    assert (status, body["hit"], stored()) == (404, False, None)
    assert "no such key" in body["error"]
    assert ask("POST", f"{PATH}/incr", {"delta": 3, "initial": 10})[1]["value"] == 13
    assert ask("POST", f"{PATH}/incr", {"initial": 10})[1]["value"] == 14
    assert ask("POST", f"{PATH}/incr", {"delta": -4})[1]["value"] == 10


@pytest.mark.parametrize("value", ["text", [1], {"a": 1}, None])
def test_incr_refuses_what_is_no_number(value: Any) -> None:
    ask("PUT", body={"value": value})
    status, body = ask("POST", f"{PATH}/incr")
    assert (status, stored()) == (409, value)
    assert "is not a number" in body["error"]


@pytest.mark.parametrize("delta", [1.5, "1", None, True, 2**53 + 1])
def test_incr_refuses_what_is_no_whole_number(delta: Any) -> None:
    ask("PUT", body={"value": 1})
    assert ask("POST", f"{PATH}/incr", {"delta": delta})[0] == 400
    assert stored() == 1


def test_add_says_whether_it_won() -> None:
    assert ask("POST", f"{PATH}/add", {"value": 1})[1]["added"] is True
    body = ask("POST", f"{PATH}/add", {"value": 2})[1]
    assert (body["added"], body["hit"], stored()) == (False, True, 1)


def test_a_timeout_of_0_removes() -> None:
    ask("PUT", body={"value": 1})
    ask("PUT", body={"value": 2, "timeout": 0})
    assert ask("GET")[1]["hit"] is False
    ask("PUT", body={"value": 1, "timeout": None})
    assert ask("POST", f"{PATH}/touch", {"timeout": 0})[1]["hit"] is True
    assert ask("GET")[1]["hit"] is False


def test_nothing_outside_the_demo_is_reached() -> None:
    cache = caches["locmem"]
    cache.set("k", "the application's")
    cache.set("cacheapp.demo:k", "the application's")  # of version 1
    assert ask("GET")[1]["hit"] is False
    ask("PUT", body={"value": "the demo's"})
    ask("PUT", "/api/cache/locmem/k2", {"value": "the demo's"})
    assert ask("DELETE", "/api/cache/locmem")[1]["removed"] == 2
    assert (stored(), stored("k2")) == (None, None)
    assert cache.get("k") == cache.get("cacheapp.demo:k") == "the application's"


def test_clear_refuses_where_keys_cannot_be_told_apart(settings: Settings) -> None:
    own = {**settings.CACHES["locmem"], "KEY_FUNCTION": "tests.unit.views.test_cache.reverse_key"}
    settings.CACHES = {**settings.CACHES, "own": own}
    ask("PUT", "/api/cache/own/k", {"value": 1})
    status, body = ask("DELETE", "/api/cache/own")
    assert (status, body["outcome"]) == (501, "fail")
    assert ask("GET", "/api/cache/own/k")[1]["value"] == 1


def reverse_key(key: str, prefix: str, version: int) -> str:
    return f"{key}:{version}:{prefix}"


def test_default_is_shown_only_where_no_other_alias_is_the_same(settings: Settings) -> None:
    assert aliases() == ["lmdb", "disk", "locmem", "redis"]
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["locmem"], "VERSION": 2}}
    assert aliases() == ["default", "lmdb", "disk", "locmem", "redis"]


class DownCache(BaseCache):
    """A third-party backend whose store fails with `error`."""

    error: Exception = OSError()

    def __init__(self, _location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def _fail(self, *_args: Any, **_kwargs: Any) -> Any:
        raise self.error

    get = set = add = touch = delete = incr = _fail


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("refused"),
        redis.ConnectionError("refused"),
        redis.TimeoutError("refused"),
        ConnectionInterrupted(None),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("method", "action", "outcome"),
    [
        ("GET", "", "fail"),
        ("PUT", "", "info"),
        ("DELETE", "", "info"),
        ("POST", "/incr", "info"),
        ("POST", "/add", "info"),
        ("POST", "/touch", "info"),
    ],
)
def test_a_foreign_store_that_is_down_is_named(
    settings: Settings, error: Exception, method: str, action: str, outcome: str
) -> None:
    DownCache.error = error
    down = {"BACKEND": "tests.unit.views.test_cache.DownCache"}
    settings.CACHES = {**settings.CACHES, "down": down}
    fields = {"PUT": {"value": 1}, "/add": {"value": 1}}
    status, body = ask(method, f"/api/cache/down/k{action}", fields.get(action or method))
    assert (status, body["alias"], body["key"], body["outcome"]) == (503, "down", "k", outcome)
    assert "the store of alias 'down' is down" in body["error"]
    assert "CACHES['down']['LOCATION']" in body["error"]


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_the_origin_sends_the_bytes_that_follow_from_the_number(size: int) -> None:
    response = send("GET", f"/api/demo/file/7?bytes={size}")
    assert response.getvalue() == b"".join(content(7, size))
    assert int(response["Content-Length"]) == size == len(b"".join(content(7, size)))
    assert b"".join(content(7, 300_000)).startswith(b"".join(content(7, size))[:65536])


def test_no_two_chunks_of_the_origin_are_alike() -> None:
    chunks = [*content(7, 300_000), *content(8, 300_000)]
    assert len(set(chunks)) == len(chunks) == 10


@pytest.mark.parametrize(
    "query",
    ["bytes=x", "bytes=-1", "bytes=10485761", "delay_ms=5001", "bytes=", "delay_ms=1e3", "bytes=¹"],
)
def test_the_origin_has_bounds(query: str) -> None:
    status, body = ask("GET", f"/api/demo/file/1?{query}")
    assert status == 400
    assert "expected a whole number from 0 to" in body["error"]
