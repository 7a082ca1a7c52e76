"""Clients that announce a body and send it slowly: other requests are served all the same."""

import contextlib
import http.client
import os
import re
import selectors
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from cacheapp.processes.servers import GunicornServer, Server
from cacheapp.processes.waiting import until
from tests.ensure_programs import NO_NGINX, find_nginx
from tests.ports import free_port
from tests.required import skip_or_fail
from tests.system.conftest import QUICK_START, ROOT, NewEnv, StartGunicorn

CLIENTS = 17
THREADS = 4
TOKEN = "t" * 32
# With the cookie, the middleware against forged requests reads the body to find its field.
HEAD = (
    "POST /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    f"Cookie: csrftoken={TOKEN}\r\nContent-Length: 1000\r\n\r\nusername="
).encode()
DEPLOY = (ROOT / "docs" / "howto" / "deploy.md").read_text()


class SlowClients:
    """Connections that each sent the begin of a body."""

    def __init__(self, port: int, count: int = CLIENTS) -> None:
        self.sockets = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(count)]
        for sock in self.sockets:
            sock.sendall(HEAD)

    def drip(self) -> None:
        """Send one more byte from each that is open."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.sendall(b"x")

    def answered(self) -> int:
        """Return how many have got a response, or the end of their connection."""
        with selectors.DefaultSelector() as found:
            for sock in self.sockets:
                found.register(sock, selectors.EVENT_READ)
            return len(found.select(0))

    def close(self) -> None:
        """Close all connections."""
        for sock in self.sockets:
            sock.close()


def _status(port: int, timeout_s: float = 120) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/login/")
        return connection.getresponse().status
    finally:
        connection.close()


def _site(new_env: NewEnv, start: StartGunicorn, body_timeout: str) -> GunicornServer:
    settings = {"WEB_CONCURRENCY": "1", "WEB_THREADS": str(THREADS), "BODY_TIMEOUT": body_timeout}
    env = {**new_env(), **QUICK_START, "DEBUG": "1", "DEMO": "0", **settings}
    server = start(env)
    assert _status(server.port) == HTTPStatus.OK
    return server


def test_more_slow_bodies_than_threads_delay_others_only_to_their_deadline(
    new_env: NewEnv, start_gunicorn: StartGunicorn
) -> None:
    site = _site(new_env, start_gunicorn, "0.5")
    slow = SlowClients(site.port)
    try:
        # Each byte would restart a timeout of single reads.
        def served() -> bool:
            slow.drip()
            with contextlib.suppress(TimeoutError):
                return _status(site.port, timeout_s=5) == HTTPStatus.OK
            return False

        until(served, "a healthy request to be served", 120)

        def all_answered() -> bool:
            slow.drip()
            return slow.answered() == CLIENTS

        until(all_answered, "every slow client to be answered", 120)
    finally:
        slow.close()


def test_a_body_in_pieces_within_the_deadline_is_read(
    new_env: NewEnv, start_gunicorn: StartGunicorn
) -> None:
    site = _site(new_env, start_gunicorn, "60")
    with socket.create_connection(("127.0.0.1", site.port), 60) as sock:
        for _ in range(2):  # on one connection
            sock.sendall(HEAD.replace(b"1000", b"12"))
            sock.sendall(b"who")
            response = http.client.HTTPResponse(sock)
            response.begin()
            response.read()
            assert response.status == HTTPStatus.FORBIDDEN  # no field against forged requests


class _Front(Server):
    """A proxy with the configuration that the documentation shows."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def start(self, command: list[str]) -> None:
        self._spawn(command, env={**os.environ, "HOME": str(self.directory)})
        try:
            until(self._listens, "the proxy to listen")
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        return False


def _documented(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DEPLOY, re.DOTALL)
    assert found, language
    return found[1]


def _start_nginx(front: _Front, backend: int) -> None:
    nginx = find_nginx()
    if nginx is None:
        skip_or_fail(NO_NGINX)
    server = _documented("nginx").replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    zone = re.search(r"limit_conn_zone [^;]*;", server)
    assert zone
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {front.directory}/{name};\n" for name in places)
    config = front.directory / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {front.directory}/pid;\nerror_log stderr;\n"
        f"{'user root;' if os.geteuid() == 0 else ''}\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{zone[0]}\n"
        f"server {{\nlisten 127.0.0.1:{front.port};\n{server}}}\n}}\n"
    )
    front.start([nginx, "-e", "stderr", "-c", str(config)])


def _start_caddy(front: _Front, backend: int) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip(
            "CADDY IS NOT INSTALLED, so its configuration in docs/howto/deploy.md was not tested. "
            "On Debian, run as root: apt install caddy"
        )
    config = _documented("caddyfile").replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    config = config.replace("cache.example", f"http://127.0.0.1:{front.port}")
    version = subprocess.run([caddy, "version"], capture_output=True, text=True, check=True).stdout
    if re.match(r"v?2\.[0-6]\.", version):  # Debian 12 and 13
        config = re.sub(r"request_buffers .*", "buffer_requests", config)
    path: Path = front.directory / "Caddyfile"
    path.write_text("{\nadmin off\n}\n".replace("}\n", "") + config.removeprefix("{\n"))
    front.start([caddy, "run", "--adapter", "caddyfile", "--config", str(path)])


@pytest.fixture(params=["nginx", "caddy"])
def front_and_site(
    request: pytest.FixtureRequest, new_env: NewEnv, start_gunicorn: StartGunicorn
) -> Iterator[tuple[_Front, GunicornServer]]:
    with _Front(free_port()) as front:
        site = _site(new_env, start_gunicorn, "60")
        {"nginx": _start_nginx, "caddy": _start_caddy}[request.param](front, site.port)
        yield front, site


def test_a_proxy_as_documented_keeps_slow_bodies_from_the_threads(
    front_and_site: tuple[_Front, GunicornServer],
) -> None:
    front, site = front_and_site
    slow = SlowClients(front.port)
    try:
        for _ in range(3):
            slow.drip()
            assert _status(front.port) == HTTPStatus.OK
            assert _status(site.port) == HTTPStatus.OK
        assert slow.answered() == 0  # they are still sending
    finally:
        slow.close()
