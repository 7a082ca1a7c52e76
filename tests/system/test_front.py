"""What the server believes of the headers that a proxy in front sets."""

import http.client
import os
import subprocess
import sys
from http import HTTPStatus

import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.views.sign_in import MAX_ATTEMPTS_OF_ADDRESS
from tests.system.conftest import QUICK_START, ROOT, NewEnv, StartGunicorn

TOKEN = "t" * 32
TLS = {"X-Forwarded-Proto": "https"}


def _status(server: GunicornServer, path: str, headers: dict[str, str], body: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request("POST" if body else "GET", path, body or None, {**form, **headers})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("behind", "status"),
    [("0", HTTPStatus.MOVED_PERMANENTLY), ("1", HTTPStatus.UNAUTHORIZED)],
    ids=["no proxy", "behind a proxy"],
)
def test_the_scheme_is_believed_only_behind_a_proxy(
    new_env: NewEnv, start_gunicorn: StartGunicorn, behind: str, status: HTTPStatus
) -> None:
    server = start_gunicorn(
        {
            **new_env(),
            **QUICK_START,
            "DEMO": "0",
            "BEHIND_TLS_PROXY": behind,
            "SECURE_SSL_REDIRECT": "1",
        }
    )
    assert _status(server, "/api/", {}) == HTTPStatus.MOVED_PERMANENTLY
    assert _status(server, "/api/", TLS) == status


@pytest.mark.parametrize("behind", ["0", "1"], ids=["no proxy", "behind a proxy"])
def test_attempts_to_sign_in_are_counted_for_the_address_that_the_proxy_saw(
    new_env: NewEnv, start_gunicorn: StartGunicorn, behind: str
) -> None:
    """Without a proxy, the header is the client's own invention."""
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.system.front_settings",
        "DEBUG": "1",  # static files without a manifest
        "DEMO": "0",
        "BEHIND_TLS_PROXY": behind,
    }
    env = {**new_env(), **QUICK_START, **env}
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **env}, check=True)
    server = start_gunicorn(env)
    assert _until_refused(server, "192.0.2.1") > 1
    # Behind a proxy another client has attempts of its own; otherwise the address was invented.
    if behind == "1":
        assert _until_refused(server, "192.0.2.2", most=1) == 0
    else:  # at once, unless a minute has just ended
        assert _until_refused(server, "192.0.2.2") > 0


def _until_refused(
    server: GunicornServer, address: str, most: int = 2 * MAX_ATTEMPTS_OF_ADDRESS + 1
) -> int:
    """Send wrong passwords; return the number of the first attempt that was refused, or 0."""
    for number in range(1, most + 1):
        headers = {
            "X-Forwarded-For": f"198.51.100.{number}, {address}",
            "Cookie": f"csrftoken={TOKEN}",
        }
        form = f"username=name-{number}&password=x&csrfmiddlewaretoken={TOKEN}"
        status = _status(server, "/login/", headers, form)
        assert status in {HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return number
    return 0
