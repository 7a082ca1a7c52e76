import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pytest_django.fixtures import Settings

from cacheapp.lab import run_record
from cacheapp.lab.results import ClaimVerdict, Result
from cacheapp.lab.run_record import LabStatus
from cacheapp.processes import background, exclusive_run
from cacheapp.processes.run_record import RunState
from cacheapp.processes.waiting import until
from tests.system.conftest import ROOT, NewEnv, still_running

LAB = [sys.executable, "manage.py", "lab"]


@pytest.fixture
def env(new_env: NewEnv, settings: Settings) -> Iterator[dict[str, str]]:
    """An environment whose state this process sees too, and a temporary directory that ends empty."""
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        made = new_env()
        settings.CACHEAPP = {
            **settings.CACHEAPP,
            "STATE_DIR": Path(made["DATA_DIR"]) / "state",
        }
        yield {**os.environ, **made, "TMPDIR": name, "COLUMNS": "80"}
        assert list(Path(name).iterdir()) == []


def lab(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAB, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=800,
        check=False,
    )  # fmt: skip


def family_of(pid: int, at_least: int) -> list[psutil.Process]:
    """Wait until a process has started so many others; return them all."""
    me = psutil.Process(pid)
    started = until(lambda: (it := me.children(recursive=True))[at_least - 1 :] and it, "it", 120)
    return [me, *started]


def test_it_prints_claim_figures_and_verdict_and_writes_files(
    env: dict[str, str], tmp_path: Path
) -> None:
    files = tmp_path / "all.json", tmp_path / "drawings", tmp_path / "claims.md"
    options = [
        f"--{name}={file}" for name, file in zip(("json", "svg", "claims"), files, strict=True)
    ]
    done = lab(env, "starting", "--small", "--code", *options)
    assert "a process takes longer to initialize than a thread" in done.stdout
    kept_here = run_record.result("starting")
    assert kept_here is not None, done.stderr
    assert done.returncode == (2 if ClaimVerdict.UNKNOWN in kept_here.verdicts else 0), done.stderr
    # Which verdict it is, how busy the machine is decides; that it is printed does not depend on it.
    printed = " ".join(done.stdout.split())
    assert all(f"{it.claim}” {it.verdict}" in printed for it in kept_here.findings)
    assert "def start_thread() -> float:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    [found] = json.loads(files[0].read_text())
    assert found["name"] == "starting"
    assert Result.from_json(json.dumps(found)) == kept_here
    drawn = (files[1] / "starting.svg").read_text()
    assert drawn == (tmp_path / "lab" / "starting.svg").read_text()
    assert "prefers-color-scheme" in drawn
    assert "a process takes longer to initialize than a thread" in files[2].read_text()
    status = run_record.status()
    assert isinstance(status, LabStatus)
    assert (status.state, status.names) == (RunState.DONE, ("starting",))


def test_without_moto_the_rest_is_measured_and_what_is_missing_is_said(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "moto").mkdir()  # stands before the real one, and has no server in it
    (tmp_path / "moto" / "__init__.py").touch()
    done = lab({**env, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}, "waiting", "--small")
    assert done.returncode == 2
    assert "UNKNOWN in waiting; the reasons are above" in done.stderr
    assert "no S3 API is available: moto is not installed" in done.stdout
    assert "3 downloads of 0.1 s" in done.stdout
    found = run_record.result("waiting")
    assert found is not None
    assert [finding.verdict for finding in found.findings][1] is ClaimVerdict.UNKNOWN


def test_the_list_names_all(env: dict[str, str]) -> None:
    done = lab(env, "--list")
    assert done.returncode == 0
    assert "what-breaks" in done.stdout


def test_an_unknown_name_is_an_error(env: dict[str, str]) -> None:
    done = lab(env, "nothing")
    assert done.returncode == 2
    assert "no experiment nothing; expected some of waiting, computing" in done.stderr


@pytest.mark.parametrize(
    ("name", "processes"),
    [("waiting", 2), ("what-breaks", 6)],
    ids=["the origin, and what is timed", "Redis, and Gunicorn with its workers"],
)
def test_ctrl_c_stops_all_that_was_started_and_says_so(
    env: dict[str, str], name: str, processes: int
) -> None:
    with subprocess.Popen(
        [*LAB, name, "--full"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
    ) as running:
        family = family_of(running.pid, processes)
        refused = lab(env, "starting")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert refused.returncode == 2
    assert (
        f"{name!r} runs in process {running.pid}; wait for it to end, or stop it" in refused.stderr
    )
    assert running.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT; 0 of 1 experiments had completed" in said
    assert "Traceback" not in said
    assert still_running(family) == []
    assert exclusive_run.holder() is None
    assert getattr(run_record.status(), "state", None) is RunState.STOPPED


def test_a_killed_run_leaves_no_process_and_no_lock(
    new_env: NewEnv, settings: Settings, tmp_path: Path
) -> None:
    made = {**new_env(), "TMPDIR": str(tmp_path)}  # the directories of what it starts stay there
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": Path(made["DATA_DIR"]) / "state"}
    with subprocess.Popen(
        [*LAB, "waiting", "--full"], cwd=ROOT, env={**os.environ, **made}, stderr=subprocess.DEVNULL
    ) as running:
        family = family_of(running.pid, 2)
        until(lambda: getattr(run_record.status(), "progress", None), "a step to be noted", 120)
        running.kill()
    until(lambda: not still_running(family), "what it started to end")
    assert getattr(run_record.status(), "state", None) is RunState.LOST
    os.close(exclusive_run.acquire())  # nobody has it


@pytest.fixture
def as_a_page(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what this process starts find the same state."""
    for name in ("DATA_DIR", "SECRET_KEY", "TMPDIR"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.setattr("django.conf.settings.SETTINGS_MODULE", "project.settings")


def test_a_page_starts_watches_and_stops_one(as_a_page: None) -> None:
    holder = run_record.start("waiting", full=True)
    with pytest.raises(background.Busy, match=f"'waiting' runs in process {holder.pid}"):
        run_record.start("starting")
    assert getattr(run_record.status(), "state", None) is RunState.RUNNING
    family = family_of(holder.pid, 2)
    until(lambda: getattr(run_record.status(), "progress", None), "a step to be noted", 120)
    status = run_record.status()
    assert status is not None
    assert (status.names, status.scale, status.pid) == (("waiting",), "full", holder.pid)
    assert background.stop() == holder
    until(lambda: not still_running(family), "all of it to end", 60)
    assert getattr(run_record.status(), "state", None) is RunState.STOPPED
    assert background.stop() is None


def test_a_program_that_has_the_turn_itself_is_never_signalled(as_a_page: None) -> None:
    with exclusive_run.exclusive_run("starting"):
        holder = exclusive_run.holder()
        assert holder is not None
        assert (holder.pid, holder.stoppable) == (os.getpid(), False)
        assert background.stop() is None  # we are still here


def test_a_start_that_fails_gives_the_turn_back(
    as_a_page: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        run_record.start("starting")
    assert exclusive_run.holder() is None
    assert getattr(run_record.status(), "state", None) is RunState.LOST
    os.close(exclusive_run.acquire())


def test_a_page_finds_the_result_of_what_it_started(as_a_page: None) -> None:
    assert run_record.result("starting") is None
    run_record.start("starting", "starting")
    status = run_record.status()
    assert status is not None
    assert status.names == ("starting",)
    until(lambda: exclusive_run.holder() is None, "the end", 120)
    assert getattr(run_record.status(), "state", None) is RunState.DONE
    assert getattr(run_record.result("starting"), "name", None) == "starting"
