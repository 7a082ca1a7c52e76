import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from cacheapp.processes.waiting import until
from tests.system.conftest import ROOT, NewEnv, still_running

WORKERS = 2


class Run:
    """`make run` on a free port."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "project.run"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def address(self) -> str:
        """Return the URL that it prints."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("Serving:"):
                return line.split()[1]
        raise AssertionError(self.lines)

    def family(self) -> list[psutil.Process]:
        """Wait for Redis, Gunicorn and its workers; return these processes."""
        me = psutil.Process(self.process.pid)
        return until(
            lambda: (it := me.children(recursive=True))[1 + WORKERS :] and it, "its servers", 120
        )


@pytest.fixture
def tmp() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="run-"
    ) as name:  # short, because socket paths are limited
        yield Path(name)


@pytest.fixture
def make_run(new_env: NewEnv, tmp: Path) -> Iterator[Run]:
    env = {
        **os.environ,
        **new_env(),
        "TMPDIR": str(tmp),
        "BIND": "127.0.0.1:0",
        "GRACEFUL_TIMEOUT": "2",
        "WEB_CONCURRENCY": str(WORKERS),
    }
    del env["REDIS_URL"]
    run = Run(env)
    with run.process:
        yield run
        run.process.kill()


def gunicorn_of(family: list[psutil.Process]) -> psutil.Process:
    """Return Gunicorn's master: the one process with children."""
    (master,) = [process for process in family if process.children()]
    return master


def get(url: str, path: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    connection.request("GET", path)
    answer = connection.getresponse()
    status, body = answer.status, json.load(answer)
    connection.close()
    return status, body


def test_make_run_serves_and_ctrl_c_stops_all_of_it(make_run: Run, tmp: Path) -> None:
    url = make_run.address()
    family = make_run.family()
    status, body = get(url, "/api/worker")
    assert status == 200
    assert body["pid"] in [process.pid for process in family]
    assert get(url, "/api/cache/redis/k")[1]["hit"] is False  # its private Redis is reached
    (line,) = (line for line in make_run.lines if line.startswith("Redis:   private server"))
    with redis.Redis.from_url(line.partition("REDIS_URL=")[2].strip()) as client:
        assert client.ping()
    # One worker hangs, so that stopping takes a while: Gunicorn kills it in the end.
    first, second = psutil.Process(gunicorn_of(family).pid).children()
    first.suspend()
    make_run.process.send_signal(signal.SIGINT)
    until(lambda: not still_running([second]), "the other worker to stop")
    make_run.process.send_signal(signal.SIGINT)  # a second Ctrl-C
    assert make_run.process.wait(120) == 0
    until(lambda: not still_running(family), "the worker that Gunicorn killed to end")
    assert list(tmp.iterdir()) == []


def test_killed_it_leaves_no_server_behind(make_run: Run) -> None:
    url = make_run.address()
    assert get(url, "/api/worker")[0] == 200
    family = make_run.family()
    make_run.process.kill()
    until(lambda: not still_running(family), "all to stop", 60)


def test_a_port_that_is_taken_is_told_before_anything_starts(new_env: NewEnv) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "project.run"],
            cwd=ROOT,
            env={**os.environ, **new_env(), "BIND": bind},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert f"Cannot serve at {bind}" in done.stdout
    assert done.stderr == ""
