"""Common uses of a cache under 4 workers: sessions, pages, fragments, a login limiter.

LocMemCache must fail at each of them here; where it did not, the tests would prove nothing.
"""

import http.client
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.system.conftest import QUICK_START, WORKERS, NewEnv, StartGunicorn

ALLOWED_ATTEMPTS = 5
Site = Callable[[str], GunicornServer]

shared = pytest.mark.parametrize("alias", ["lmdb", "disk", "redis"])


@pytest.fixture(scope="module")
def site(new_env: NewEnv, start_gunicorn: StartGunicorn) -> Site:
    """Start the site once for each alias."""
    started: dict[str, GunicornServer] = {}

    def serve(alias: str) -> GunicornServer:
        if alias not in started:
            env = {"DJANGO_SETTINGS_MODULE": "tests.system.site_settings", "SITE_ALIAS": alias}
            started[alias] = start_gunicorn({**new_env(), **QUICK_START, **env})
        return started[alias]

    return serve


def _get(server: GunicornServer, path: str, cookie: str = "") -> http.client.HTTPResponse:
    """Send a request on its own connection, so that any worker may get it; read the body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request("GET", path, headers={"Cookie": cookie, "Connection": "close"})
        response = connection.getresponse()
        response.body = response.read().decode()  # type: ignore[attr-defined]
    finally:
        connection.close()
    return response


def _body(response: http.client.HTTPResponse) -> str:
    text: str = response.body  # type: ignore[attr-defined]
    return text


def _bodies_of_all_workers(server: GunicornServer, path: str) -> set[str]:
    """Send requests until every worker has responded; return the different responses."""
    workers: set[str | None] = set()
    bodies: set[str] = set()

    def all_answered() -> bool:
        with ThreadPoolExecutor(16) as pool:
            for response in pool.map(lambda _: _get(server, path), range(32)):
                assert response.status == HTTPStatus.OK
                workers.add(response.headers["X-Worker"])
                bodies.add(_body(response))
        return len(workers) == WORKERS

    until(all_answered, f"all workers to answer {path}", within_s=150)
    return bodies


def _visits(server: GunicornServer) -> list[int]:
    """Visit with one session cookie until several workers have responded; return all responses."""
    cookie, counts, workers = "", [], set()

    def several_answered() -> bool:
        nonlocal cookie
        for _ in range(60):
            response = _get(server, "/visit", cookie)
            if set_cookie := response.headers["Set-Cookie"]:
                cookie = set_cookie.split(";")[0]
            workers.add(response.headers["X-Worker"])
            counts.append(int(_body(response)))
        return len(workers) > 1

    until(several_answered, "several workers to answer", within_s=150)
    return counts


def _allowed(server: GunicornServer) -> int:
    """Log in concurrently until all workers refuse; return the number of accepted attempts."""
    outcomes: list[tuple[str | None, int]] = []

    def all_asked() -> bool:
        with ThreadPoolExecutor(16) as pool:
            answers = pool.map(lambda _: _get(server, "/login"), range(64))
            outcomes.extend((answer.headers["X-Worker"], answer.status) for answer in answers)
        asked = Counter(worker for worker, _ in outcomes)
        return len(asked) == WORKERS and min(asked.values()) > ALLOWED_ATTEMPTS

    until(all_asked, "all workers to be asked often enough", within_s=150)
    return sum(status == HTTPStatus.OK for _worker, status in outcomes)


@shared
def test_a_session_is_the_same_in_every_worker(site: Site, alias: str) -> None:
    counts = _visits(site(alias))
    assert counts == list(range(1, len(counts) + 1))


@shared
@pytest.mark.parametrize("path", ["/page", "/fragment"])
def test_what_one_worker_cached_all_serve(site: Site, alias: str, path: str) -> None:
    server = site(alias)
    first = _body(_get(server, path))
    assert _bodies_of_all_workers(server, path) == {first}


@shared
def test_a_login_limiter_allows_exactly_as_many_as_it_should(site: Site, alias: str) -> None:
    assert _allowed(site(alias)) == ALLOWED_ATTEMPTS


def test_locmem_breaks_all_of_them(site: Site) -> None:
    server = site("locmem")
    assert len(_bodies_of_all_workers(server, "/page")) >= WORKERS
    assert len(_bodies_of_all_workers(server, "/fragment")) >= WORKERS
    assert _allowed(server) == ALLOWED_ATTEMPTS * WORKERS
    counts = _visits(server)
    assert counts != list(range(1, len(counts) + 1))
