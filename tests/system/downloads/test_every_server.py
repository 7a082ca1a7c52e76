"""Downloads under servers without cacheapp's hooks: they start on their own and hand over at the end.

The servers are not among the pinned packages: `make matrix ARGS='-s servers'` installs them. The caches need
nothing from a server, so what is tested here is what does: two servers share a site, and one of them ends.
"""

import http.client
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Self

import psutil
import pytest

from cacheapp.processes.servers import Server
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body
from tests.ports import free_port
from tests.system.conftest import NewEnv
from tests.system.downloads.parts import ROOT, migrate

pytestmark = pytest.mark.soak

ASGI, WSGI = "project.asgi:application", "project.wsgi:application"
UVICORN_OPTIONS = "--timeout-graceful-shutdown 10"
UWSGI = "-c import(sys,pyuwsgi);pyuwsgi.run(sys.argv[1:])"
UWSGI_WORKERS = 2
UWSGI_OPTIONS = "--lazy-apps --enable-threads --die-on-term --worker-reload-mercy 20 --need-app"
COMMANDS: dict[str, tuple[str, str]] = {
    "uvicorn": ("uvicorn", f"-m uvicorn {ASGI} --workers 2 --port PORT {UVICORN_OPTIONS}"),
    "granian-asgi": ("granian", f"-m granian --interface asgi {ASGI} --workers 2 --port PORT"),
    "granian-wsgi": ("granian", f"-m granian --interface wsgi {WSGI} --workers 2 --port PORT"),
    "hypercorn": ("hypercorn", f"-m hypercorn {ASGI} --workers 2 --bind 127.0.0.1:PORT"),
    "daphne": ("daphne", f"-m daphne {ASGI} --port PORT"),
    "uwsgi": (
        "pyuwsgi",
        f"{UWSGI} --http-socket 127.0.0.1:PORT --module {WSGI} --master --processes {UWSGI_WORKERS} {UWSGI_OPTIONS}",
    ),
    "runserver": ("django", "manage.py runserver PORT --noreload"),
    "gunicorn-asgi": (
        "gunicorn",
        f"-m gunicorn {ASGI} --worker-class asgi --workers 2 --bind 127.0.0.1:PORT",
    ),
    **{
        f"gunicorn-{kind}": (
            "gunicorn",
            f"-m gunicorn {WSGI} --worker-class {kind} --workers 2 --bind 127.0.0.1:PORT",
        )
        for kind in ("gthread", "sync", "gevent")
    },
    "gunicorn without hooks": (
        "gunicorn",
        f"-m gunicorn {WSGI} --config /dev/null --threads 4 --workers 2 --bind 127.0.0.1:PORT",
    ),
}


class AnyServer(Server):
    """A server of the project by its own command, on a port that was free a moment ago."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        super().__init__()
        self.port = free_port()
        words = COMMANDS[name][1].replace("PORT", str(self.port)).split()
        self._command = [
            word.replace("import(sys,pyuwsgi)", "import sys,pyuwsgi") for word in words
        ]
        self._env = {
            **os.environ,
            **env,
            "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{ROOT}",
        }

    def start(self) -> Self:
        """Start it; return when it accepts connections."""
        self._spawn([sys.executable, *self._command], env=self._env, cwd=ROOT)
        try:
            until(self._accepts, "the server to accept connections", 60)
        except TimeoutError as exc:
            raise AssertionError(self.output()) from exc
        return self

    def _accepts(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def until_loaded(self) -> None:
        """Wait for the second worker of uWSGI: it dies with all others if a signal finds it importing."""
        if any("pyuwsgi" in word for word in self._command):
            until(lambda: self.output().count(" app 0 ") == UWSGI_WORKERS, "both workers", 60)

    def request(self, method: str, path: str, wanted: Any = None) -> dict[str, Any]:
        """Return the response of whichever worker takes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if wanted is None else json.dumps(wanted)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            found: dict[str, Any] = json.loads(response.read())
            assert response.status < 300, found
            return found
        finally:
            connection.close()

    def end(self) -> None:
        """End it as a process manager does, and `runserver` by Ctrl-C."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT if "runserver" in self._command else signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


class Site:
    """Two servers of one site, and a job in the first one that hangs in the middle of a file."""

    def __init__(self, name: str, env: Mapping[str, str], origin: Origin) -> None:
        migrate(env)
        self.first = AnyServer(name, env)
        self.second = AnyServer(name, env)
        whole = body({"bytes": "1500000"})
        origin.things["big"] = Thing([Version(whole, '"v"')], cuts=[1_000_000], hang=True)
        self.urls = [f"{origin.url}/thing/big", f"{origin.url}/file/small"]

    def start_job(self) -> dict[str, Any]:
        """Start both servers and the job; return it when its small file is done."""
        self.first.start()
        self.second.start()
        job = self.first.request("POST", "/api/downloads", {"urls": self.urls})
        place = f"/api/downloads/{job['id']}"
        until(lambda: self.first.request("GET", place)["files_done"] == 1, "the small file", 60)
        self.first.until_loaded()
        return job

    def until_adopted(self, job: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        """Return the job when the second server has completed it."""
        found: dict[str, Any] = {}

        def is_complete() -> bool:
            found.update(self.second.request("GET", f"/api/downloads/{job['id']}"))
            return bool(found["state"] == "succeeded")

        try:
            until(is_complete, "the second server to complete the job", within_s)
        except TimeoutError as exc:
            exc.add_note(f"{found}\n{self.first.output()[-3000:]}\n{self.second.output()[-3000:]}")
            raise
        return found


@pytest.fixture(params=list(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    package = COMMANDS[found][0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} IS NOT INSTALLED; make matrix ARGS='-s servers' installs it")
    return found


def test_a_job_of_a_killed_worker_is_adopted(name: str, new_env: NewEnv, origin: Origin) -> None:
    env = {**new_env(), "DOWNLOAD_ORIGINS": origin.url, "DOWNLOAD_HEARTBEAT_S": "5"}
    site = Site(name, env, origin)
    with site.first, site.second:
        job = site.start_job()
        psutil.Process(job["owner_pid"]).kill()
        assert site.until_adopted(job, 120)["adoptions"] == 1


def test_a_server_that_ends_hands_its_jobs_over(name: str, new_env: NewEnv, origin: Origin) -> None:
    # A job that was not handed over would be found lost only after heartbeats of a minute.
    env = {**new_env(), "DOWNLOAD_ORIGINS": origin.url, "DOWNLOAD_HEARTBEAT_S": "60"}
    site = Site(name, env, origin)
    with site.first, site.second:
        job = site.start_job()
        site.first.end()
        # Twice if the other worker of this server had not got its signal yet: it hands the job over too.
        assert site.until_adopted(job, 40)["adoptions"] in (1, 2)
