"""Downloads under other workers than the threaded ones of this project's configuration."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body
from tests.system.conftest import QUICK_START, NewEnv
from tests.system.downloads.parts import ROOT, SOON_LOST, migrate


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


def _ask(server: GunicornServer, method: str, path: str, wanted: Any = None) -> dict[str, Any]:
    """Ask whichever worker takes the connection; each takes one at a time."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        data = None if wanted is None else json.dumps(wanted)
        connection.request(method, path, body=data, headers=headers)
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        assert answer.status < 300, found
        return found
    finally:
        connection.close()


@pytest.mark.parametrize("worker_class", ["sync", "gevent"])
def test_other_workers_host_and_adopt_jobs(
    worker_class: str, new_env: NewEnv, origin: Origin
) -> None:
    env = {
        **new_env(),
        **({} if worker_class == "gevent" else QUICK_START),  # it patches before anything is loaded
        **SOON_LOST,
        "DOWNLOAD_ORIGINS": origin.url,
        "GUNICORN_CMD_ARGS": f"--worker-class {worker_class} --threads 1",
    }
    migrate(env)
    whole = body({"bytes": "1500000"})
    origin.things["big"] = Thing([Version(whole, '"v"')], cuts=[1_000_000], hang=True)
    with GunicornServer("project.wsgi:application", ROOT, env) as server:
        server.start()
        urls = [f"{origin.url}/thing/big", f"{origin.url}/file/small"]
        job = _ask(server, "POST", "/api/downloads", {"urls": urls})
        place = f"/api/downloads/{job['id']}"
        until(lambda: _ask(server, "GET", place)["files_done"] == 1, "the small file", 120)
        psutil.Process(job["owner_pid"]).kill()
        until(lambda: _ask(server, "GET", place)["state"] == "succeeded", "another worker", 120)
        assert _ask(server, "GET", place)["adoptions"] == 1
        assert f"worker: {worker_class}" in server.output()
