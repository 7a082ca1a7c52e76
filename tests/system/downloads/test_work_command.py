"""`manage.py downloads --work`: jobs outside Gunicorn, by the same protocol."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body
from tests.system.conftest import NewEnv
from tests.system.downloads.parts import ROOT, migrate

ORDER = """
import uuid
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.sources.request import DownloadRequest
nobody = JobOwner(uuid.uuid4(), 1)
job = repository.create(DownloadRequest(({urls},), threads=4), nobody)
transitions.release_all(nobody)
print(job.id)
"""
STATE = """
from cacheapp.downloads.jobs.models import DownloadJob
job = DownloadJob.objects.get()
print(job.state, job.owner is None, job.files_done, job.adoptions)
"""
TOTALS = "from cacheapp.downloads.runners import metrics; print(metrics.totals())"
SIZE, CUT = 1_500_000, 1_000_000


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def env(new_env: NewEnv, origin: Origin) -> dict[str, str]:
    found = {**os.environ, **new_env(), "DOWNLOAD_ORIGINS": origin.url}
    migrate(found)
    return found


@pytest.fixture
def work(env: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    processes = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "manage.py", "downloads", "--work"]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _python(env: dict[str, str], program: str) -> str:
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_jobs_are_run_outside_gunicorn_and_released_on_sigterm(
    env: dict[str, str], origin: Origin, work: Callable[[], subprocess.Popen[str]]
) -> None:
    whole = body({"bytes": str(SIZE)})
    origin.things["big"] = Thing([Version(whole, '"v1"')], cuts=[CUT], hang=True)
    urls = [f"{origin.url}/file/{n}" for n in range(5)] + [f"{origin.url}/thing/big"]
    job = _python(env, ORDER.format(urls=", ".join(map(repr, urls))))
    directory = Path(env["DATA_DIR"]) / "downloads" / job
    first = work()

    def half_there() -> bool:
        sizes = [path.stat().st_size for path in directory.glob(".*/*.part")]
        return len(list(directory.glob("[0-9]"))) == 5 and sizes > [CUT - 2**18 - 1]

    until(half_there, "five files, and the better part of the sixth", 120)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    assert said.endswith("stopped by SIGTERM; its jobs are released\n")
    assert _python(env, STATE) == "queued True 5 1"
    work()
    until(lambda: _python(env, STATE) == "succeeded False 6 2", "the rest", 120)
    assert (directory / "big").read_bytes() == whole
    until(lambda: not list(directory.glob(".*")), "what the runs left to be removed")
    asked = origin.things["big"].asked[1]["range"]
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= CUT - 2**18
    bytes_done = 5 * 1000 + SIZE
    facts = ["'files_done': 6", f"'bytes_done': {bytes_done}", "'adoptions': 2", "'releases': 1"]
    until(lambda: _missing(facts, _python(env, TOTALS)) == [], "the end to be counted")


def _missing(facts: list[str], text: str) -> list[str]:
    return [fact for fact in facts if fact not in text]


def test_without_a_database_it_exits_with_2_and_a_message(new_env: NewEnv) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "downloads", "--work"],
        cwd=ROOT,
        env={**os.environ, **new_env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "was `manage.py migrate` run?" in done.stderr
