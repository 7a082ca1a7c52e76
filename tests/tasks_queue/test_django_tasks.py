"""Jobs that real workers of django-tasks-db run on Django 6: `make matrix ARGS="-s tasks"`."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.system.conftest import (  # noqa: F401 (fixtures)
    QUICK_START,
    NewEnv,
    StartGunicorn,
    new_env,
    start_gunicorn,
)
from tests.system.downloads.parts import ROOT, Site, expected, migrate, paths

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        importlib.util.find_spec("django_tasks_db") is None,
        reason="needs Django 6 and django-tasks-db: make matrix ARGS='-s tasks'",
    ),
]

WHOLE = b"x" * 900_000


class TaskWorker:
    """A real `manage.py db_worker`."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "db_worker", "--interval", "0.1", "--no-reload"],
                cwd=ROOT,
                env={**os.environ, **env},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def stop(self, *, hard: bool = False) -> None:
        """End it; `hard`: it gives nothing back."""
        self.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        try:
            self.process.wait(100)
        except subprocess.TimeoutExpired:  # it waits for a task
            self.process.kill()
            self.process.wait(100)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def env(new_env: NewEnv, origin: Origin) -> dict[str, str]:  # noqa: F811 (the fixture)
    found = {
        **new_env(),
        **QUICK_START,
        "DJANGO_SETTINGS_MODULE": "tests.tasks_queue.settings",
        "DOWNLOAD_RUNNER": "tasks",
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_HEARTBEAT_S": "3",
    }
    migrate(found)
    return found


@pytest.fixture(scope="module")
def site(
    env: dict[str, str],
    start_gunicorn: StartGunicorn,  # noqa: F811 (the fixture)
    origin: Origin,
) -> Iterator[Site]:
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def _order(site: Site, urls: list[str]) -> dict[str, Any]:
    wanted = {"urls": [site.origin.url + path for path in urls], "threads": 4}
    answer = site.workers.ask(site.workers.find()[0], "POST", "/api/downloads", wanted)
    assert answer.status == 202, answer.body
    assert answer.body["owner_pid"] is None
    return answer.body


def test_a_worker_of_the_queue_runs_the_job(
    site: Site, env: dict[str, str], tmp_path: Path
) -> None:
    worker = TaskWorker(env, tmp_path / "log")
    try:
        job = _order(site, paths(20, 1000))
        found = site.wait_for_state(job, "succeeded")
        assert found["owner_pid"] == worker.process.pid
        assert site.files(job) == expected(20, 1000)
    finally:
        worker.stop()


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM] * 2], ids=["kill", "term"])
def test_the_job_of_a_worker_that_ends_is_resumed_by_another(
    site: Site, env: dict[str, str], tmp_path: Path, signals: list[signal.Signals]
) -> None:
    name = f"cut-{len(signals)}"
    thing = site.origin.things[name] = Thing([Version(WHOLE, '"1"')], cuts=[600_000], hang=True)
    first = TaskWorker(env, tmp_path / "first")
    job = _order(site, [*paths(5, 1000), f"/thing/{name}"])
    until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 60)
    before = site.look(job)
    for number in signals:
        first.process.send_signal(number)
        if len(signals) > 1:
            until(lambda: b"shutting down" in (tmp_path / "first").read_bytes(), "the first")
    first.process.wait(60)
    second = TaskWorker(env, tmp_path / "second")
    try:
        found = site.wait_for_state(job, "succeeded")
        assert found["owner_pid"] == second.process.pid != before["owner_pid"]
        assert site.files(job) == {**expected(5, 1000), name: WHOLE}
        assert thing.asked[1]["range"].startswith("bytes=")  # from the bytes on disk
    finally:
        second.stop()


def test_a_job_that_waits_in_the_queue_is_cancelled_at_once(site: Site) -> None:
    job = _order(site, paths(1, 10))
    pid = site.workers.find()[0]
    assert site.workers.ask(pid, "POST", f"/api/downloads/{job['id']}/cancel").status == 202
    assert site.look(job)["state"] == "cancelled"
