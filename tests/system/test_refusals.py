"""Requests that the demo refuses, over real HTTP; tests/unit has the full tables."""

import json
import socket
from collections.abc import Iterator

import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.workers import Workers
from tests.system.conftest import QUICK_START, WORKERS, NewEnv, StartGunicorn

PATH = "/api/cache/disk/refusals"


@pytest.fixture(scope="module")
def server(new_env: NewEnv, start_gunicorn: StartGunicorn) -> GunicornServer:
    return start_gunicorn({**new_env(), **QUICK_START})


@pytest.fixture
def workers(server: GunicornServer) -> Iterator[Workers]:
    """All workers; a key has the value `old` before and after the test."""
    with Workers(server.url, WORKERS) as found:
        found.find()
        assert found.ask(found.pids[0], "PUT", PATH, {"value": "old"}).status == 200
        yield found
        assert [it.body["value"] for it in found.each("GET", PATH).values()] == ["old"] * WORKERS


def send(server: GunicornServer, head: list[str], body: bytes = b"") -> tuple[int, bytes]:
    """Send a request as it stands; return the status and the rest of the answer."""
    lines = [*head, "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as sock:
        sock.sendall("\r\n".join(lines).encode() + body)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    return int(data.split()[1]), data.partition(b"\r\n\r\n")[2]


GOOD = b'{"value": "new"}'
HOST = "Host: 127.0.0.1"
JSON = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(GOOD)}"
PUT = f"PUT {PATH} HTTP/1.1"


@pytest.mark.parametrize(
    ("status", "head", "body"),
    [
        (403, [PUT, HOST, JSON, LENGTH, "X-Forwarded-For: 127.0.0.1"], GOOD),
        (403, [PUT, HOST, JSON, LENGTH, "Forwarded: for=127.0.0.1"], GOOD),
        (403, [PUT, HOST, JSON, LENGTH, "Via: 1.1 proxy"], GOOD),
        (403, [PUT, HOST, JSON, LENGTH, "Origin: https://example.com"], GOOD),
        (403, [PUT, HOST, JSON, LENGTH, "Origin: null"], GOOD),
        (403, [PUT, HOST, JSON, LENGTH, "Sec-Fetch-Site: cross-site"], GOOD),
        (403, [f"DELETE {PATH} HTTP/1.1", HOST, "Sec-Fetch-Site: same-site"], b""),
        (403, ["DELETE /api/cache/disk HTTP/1.1", HOST, "Origin: http://localhost:1"], b""),
        (403, [f"PUT {PATH} HTTP/1.0", HOST, JSON, LENGTH], GOOD),
        (415, [PUT, HOST, LENGTH], GOOD),
        (415, [f"POST {PATH}/incr HTTP/1.1", HOST, "Content-Type: text/plain", LENGTH], GOOD),
        (411, [PUT, HOST, JSON, "Transfer-Encoding: chunked"], b"10\r\n" + GOOD + b"\r\n0\r\n\r\n"),
        (413, [PUT, HOST, JSON, "Content-Length: 65537"], b""),  # answered before the body comes
        (400, [PUT, HOST, JSON, "Content-Length: 7"], b'{"value'),
        (400, [f"PUT {PATH}%00 HTTP/1.1", HOST, JSON, LENGTH], GOOD),
        (400, [f"PUT {PATH}/../refusals HTTP/1.1", HOST, JSON, LENGTH], GOOD),
        (404, ["PUT /api/cache/nosuch/k HTTP/1.1", HOST, JSON, LENGTH], GOOD),
        (405, [f"POST {PATH} HTTP/1.1", HOST, JSON, LENGTH], GOOD),
        (405, [f"BREW {PATH} HTTP/1.1", HOST], b""),
    ],
    ids=lambda case: " ".join(case[0:1] + case[2:]) if isinstance(case, list) else "",
)
def test_a_refusal_is_json_and_changes_nothing(
    server: GunicornServer, workers: Workers, status: int, head: list[str], body: bytes
) -> None:
    answered, said = send(server, head, body)
    assert answered == status, said
    assert json.loads(said)["error"]
    assert json.loads(said)["pid"] in workers.pids


@pytest.mark.parametrize(
    "host", ["Host: example.com", "Host: 127.0.0.1.example.com", "Host: 127.0.0.2", "Host: a b"]
)
def test_another_host_is_refused(server: GunicornServer, workers: Workers, host: str) -> None:
    # Refused by Django's ALLOWED_HOSTS before any view, with an HTML page.
    assert send(server, [PUT, host, JSON, LENGTH], GOOD)[0] == 400


def test_forwarding_headers_in_other_spellings_do_not_pass(
    server: GunicornServer, workers: Workers
) -> None:
    # Gunicorn drops names with underscores, which Django could not distinguish.
    status, _ = send(server, [f"GET {PATH} HTTP/1.1", HOST, "x-forwarded-for: 1.2.3.4"])
    assert status == 403


def test_the_origin_streams_what_it_promises(server: GunicornServer) -> None:
    status, body = send(server, ["GET /api/demo/file/3?bytes=3000000 HTTP/1.1", HOST])
    assert (status, len(body)) == (200, 3_000_000)


def test_the_demo_is_off_unless_asked_for(new_env: NewEnv, start_gunicorn: StartGunicorn) -> None:
    server = start_gunicorn({**new_env(), **QUICK_START, "DEMO": "0", "WEB_CONCURRENCY": "1"})
    for line in ("GET /api/worker HTTP/1.1", f"GET {PATH} HTTP/1.1", "GET / HTTP/1.1"):
        status, said = send(server, [line, HOST])
        assert status == 401
        assert "the demo is off" in json.loads(said)["error"]
