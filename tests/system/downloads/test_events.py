"""Events under the real Gunicorn: sent by any worker, continued on another, within limits."""

import http.client
import json
import signal
from collections.abc import Iterator
from typing import Any, Self

import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.parts import PATIENT, Site, migrate, paths

FINISHED = {"succeeded", "failed", "cancelled"}
SETTINGS = {**PATIENT, "DJANGO_SETTINGS_MODULE": "tests.system.streaming_settings"}


class Listener:
    """A client of one stream, which it reads line by line."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, seen: str = "") -> None:
        self._connection = connection
        connection.request("GET", path, headers={"Last-Event-ID": seen} if seen else {})
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = self._response.headers
        self.seen = seen
        self.comments: list[str] = []

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and data of each event, as it comes, until the stream ends."""
        fields: dict[str, str] = {}
        for line in self._response:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
                continue
            if value:
                self.comments.append(value)
                continue
            self.seen = fields.get("id", self.seen)
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])
            fields = {}

    def body(self) -> dict[str, Any]:
        """Return an answer that is no stream."""
        found: dict[str, Any] = json.loads(self._response.read())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def connect(server: GunicornServer, pid: int | None = None) -> http.client.HTTPConnection:
    """Return a connection to one worker, or to any; it stays with that worker."""

    def find() -> http.client.HTTPConnection | None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("GET", "/api/worker")
        found = json.loads(connection.getresponse().read())["pid"]
        if pid in {None, found}:
            return connection
        connection.close()
        return None

    found = until(find, f"a connection to worker {pid}", 120)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def site(new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    env = {**new_env(), **QUICK_START, **SETTINGS, "DOWNLOAD_ORIGINS": origin.url}
    env["DOWNLOAD_TRIES"] = "1"
    migrate(env)
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def workers_of(site: Site) -> tuple[int, int, int]:
    """Return one for each use: a client that left is noticed within seconds, and keeps its slot until then."""
    first, second, third, _ = sorted(site.workers.find())
    return first, second, third


def test_a_client_follows_a_job_from_worker_to_worker_and_misses_nothing(site: Site) -> None:
    first, second, _ = workers_of(site)
    job = site.order([*paths(20, 50_000), "/hang/last"], threads=4, pid=first)
    path = f"/api/downloads/{job['id']}/events?files=1"
    told: dict[int, str] = {}
    generations = []

    def listen(pid: int, seen: str, state: str) -> str:
        """Read a job's events from one worker until so many files are complete, or it is in a state."""
        with Listener(connect(site.server, pid), path, seen) as listener:
            assert listener.status == 200, listener.body()
            for name, data in listener.events():
                assert data["pid"] == pid
                if name == "files":
                    told.update({file["position"]: file["state"] for file in data["files"]})
                elif name == "job":
                    generations.append(data["generation"])
                    assert listener.seen == str(data["generation"])
                    if (data["state"], data["files_done"]) == (state, 20):
                        return listener.seen
                else:
                    assert (name, data["state"]) == ("end", state)
                    return listener.seen
        pytest.fail(f"the stream ended before the job was {state}: {listener.comments}")

    seen = listen(first, "", "running")
    assert told == dict.fromkeys(range(20), "succeeded") | {20: told[20]}
    site.workers.ask(second, "POST", f"/api/downloads/{job['id']}/cancel")
    seen = listen(second, seen, "cancelled")
    assert told[20] == "cancelled"
    assert generations == sorted(set(generations))
    with Listener(connect(site.server, first), path, seen) as listener:
        assert listener.status == 204


def test_streams_never_take_all_threads_of_a_worker(site: Site) -> None:
    pid = workers_of(site)[2]
    job = site.order(["/hang/x"], pid=pid)
    until(lambda: site.look(job, pid)["state"] == "running", "the job to run", 120)
    path = f"/api/downloads/{job['id']}/events"
    taken = [Listener(connect(site.server, pid), path) for _ in range(4)]
    assert [listener.status for listener in taken] == [200] * 4
    with Listener(connect(site.server, pid), path) as late:
        assert (late.status, late.headers["Retry-After"]) == (503, "5")
        assert late.body()["poll"] == f"/api/downloads/{job['id']}"
    for _ in range(4):
        assert site.look(job, pid)["state"] == "running"
    for listener in taken:
        with listener:  # leaves without a word, as a browser does
            pass

    def has_capacity() -> bool:
        with Listener(connect(site.server, pid), path) as listener:
            return listener.status == 200

    until(has_capacity, "the worker to notice that its clients have left", 120)
    site.workers.ask(pid, "POST", f"/api/downloads/{job['id']}/cancel")
    site.wait_for_state(job, "cancelled")


@pytest.fixture
def short(new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    env = {**new_env(), **QUICK_START, **SETTINGS, "DOWNLOAD_ORIGINS": origin.url, "STREAM_S": "1"}
    migrate(env)
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def test_a_stream_ends_after_its_time_and_the_client_continues_elsewhere(short: Site) -> None:
    job = short.order(["/hang/x"])
    path = f"/api/downloads/{job['id']}/events"
    seen = ""
    for pid in short.workers.find():
        with Listener(connect(short.server, pid), path, seen) as listener:
            names = [name for name, _data in listener.events()]  # to its end
            assert "end" not in names
            seen = listener.seen
    assert int(seen) >= 1
    short.workers.ask(short.workers.find()[0], "POST", f"/api/downloads/{job['id']}/cancel")
    short.wait_for_state(job, "cancelled")


def test_a_worker_that_ends_does_not_wait_for_its_streams(
    new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin
) -> None:
    env = {
        **new_env(),
        **QUICK_START,
        **PATIENT,
        "DOWNLOAD_ORIGINS": origin.url,
        "GRACEFUL_TIMEOUT": "120",
    }
    migrate(env)
    server = start_gunicorn(env)
    site = Site(server, env, origin)
    job = site.order(["/hang/x"])
    with Listener(connect(server), f"/api/downloads/{job['id']}/events") as listener:
        events = listener.events()
        assert next(events)[0] == "job"
        server.send(signal.SIGTERM)
        assert server.process is not None
        assert server.process.wait(100) == 0  # the grace time is 120
        assert {name for name, _data in events} <= {"job", "end"}
    site.workers.close()
    server.stop()
