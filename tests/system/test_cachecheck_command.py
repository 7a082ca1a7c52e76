import json
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.system.conftest import QUICK_START, ROOT, NewEnv, still_running

CHECK = [sys.executable, "manage.py", "cachecheck"]
QUICK = ["--seconds", "0.2", "--processes", "2", "--threads", "1"]


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory for what the command makes: empty before, and it must be after."""
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def run(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CHECK, *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def test_one_command_tells_right_from_wrong_and_draws_the_proof(
    new_env: NewEnv, short_tmp: Path, tmp_path: Path
) -> None:
    env = {**new_env(), **QUICK_START, "TMPDIR": str(short_tmp)}
    report, drawings = tmp_path / "report.json", tmp_path / "drawings"
    done = run(
        env,
        *("locmem", "disk", *QUICK, "--private", "--only", "add", "--only", "acounters"),
        *("--json", str(report), "--svg", str(drawings)),
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(report.read_text())
    assert found["verdicts"] == {
        "locmem": {"one winner of add": "BROKEN", "no increment lost (async)": "BROKEN"},
        "disk": {"one winner of add": "HOLDS", "no increment lost (async)": "HOLDS"},
    }
    assert (
        "locmem: one winner of add: BROKEN: 40 of 40 keys had more than one winner" in done.stdout
    )
    assert "├ add " in done.stdout
    assert "2 broken: locmem: one winner of add" in done.stderr
    assert "\x1b" not in done.stdout
    for path in drawings.iterdir():
        ET.fromstring(path.read_text())  # noqa: S314 (our own)
    assert "locmem-one-winner-of-add.svg" in {path.name for path in drawings.iterdir()}


def test_nothing_is_left_in_a_real_store_and_nothing_else_is_touched(
    new_env: NewEnv, short_tmp: Path
) -> None:
    with RedisServer() as server:
        server.start()
        env = {**new_env(), **QUICK_START, "TMPDIR": str(short_tmp), "REDIS_URL": server.url}
        own = ["redis", *QUICK, "--only", "registers", "--only", "incr_version", "--only", "clear"]
        with server.client() as client:
            client.set("somebody", "else")
            done = run(env, *own)
            assert done.returncode == 0, done.stdout + done.stderr
            assert client.keys() == [b"somebody"]
    assert "NOT APPLICABLE" in done.stdout


def test_over_http_the_workers_are_judged(new_env: NewEnv, short_tmp: Path) -> None:
    env = {**new_env(), **QUICK_START, "TMPDIR": str(short_tmp)}
    quick = ["--seconds", "0.3", "--processes", "2", "--threads", "2"]
    done = run(
        env, "--gunicorn", "locmem", "disk", *quick, "--only", "registers", "--only", "counters"
    )
    assert done.returncode == 1, done.stderr
    assert "2 broken: locmem: one order; locmem: no increment lost" in done.stderr
    assert "worker 1, thread" in done.stdout, "lanes are workers"


def test_ctrl_c_shows_what_is_known_and_leaves_nothing(new_env: NewEnv, short_tmp: Path) -> None:
    with RedisServer() as server:
        server.start()
        env = {**os.environ, **new_env(), "TMPDIR": str(short_tmp), "REDIS_URL": server.url}
        arguments = ["redis", "--processes", "2", "--only", "add", "--only", "registers"]
        with (
            server.client() as client,
            subprocess.Popen(
                [*CHECK, *arguments, "--seconds", "60"],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as check,
        ):
            until(lambda: client.keys("*-register-*"), "the check to write", 120)
            family = psutil.Process(check.pid).children(recursive=True)
            os.kill(check.pid, signal.SIGINT)
            said, complained = check.communicate(timeout=120)
            assert check.returncode == 128 + signal.SIGINT
            assert client.keys() == []
    assert "stopped by SIGINT; the findings above are incomplete" in complained
    assert "Traceback" not in complained
    assert said
    assert still_running(family) == []
