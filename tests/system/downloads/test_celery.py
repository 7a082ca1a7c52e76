"""Jobs that real Celery workers run, with a real Redis as broker: adopted once, and resumed."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cacheapp import clock
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.parts import ROOT, Site, expected, migrate, paths

WORK = """
import sys, project.celery as c
if float(sys.argv[1]):
    c.app.conf.broker_transport_options = {"visibility_timeout": float(sys.argv[1])}
c.app.worker_main(sys.argv[2:])
"""
VISIBLE_AGAIN_S = 2.0
HEARTBEAT_S = 6
WAITS = f"Retry in {6 * HEARTBEAT_S}"
"""What Celery logs when a task finds its job run by another process."""
SEND = "import sys, project.celery as c; c.app.send_task('cacheapp.run_download', [sys.argv[1]])"


class CeleryWorker:
    """A real worker with two processes of its own."""

    def __init__(self, env: dict[str, str], log: Path, visible_again_s: float = 0.0) -> None:
        """`visible_again_s`: after that the broker delivers an unacknowledged task again."""
        self._env, self._log, self._visible_again_s = env, log, visible_again_s
        self.start()

    def start(self) -> None:
        """Begin, with a new log; return when it takes tasks."""
        command = [sys.executable, "-c", WORK, str(self._visible_again_s), "worker"]
        options = ["--pool", "prefork", "--concurrency", "2", "--without-mingle"]
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                [*command, *options, "--without-gossip"],
                cwd=ROOT,
                env={**os.environ, **self._env},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(lambda: " ready." in self.output(), "the Celery worker to be ready", 120)
        except TimeoutError as exc:
            self.stop()
            raise AssertionError(f"{exc}; it printed:\n{self.output()}") from exc

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pids(self) -> set[int]:
        return {it.pid for it in psutil.Process(self._process.pid).children()}

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise

    def kill(self) -> None:
        """End it with all its processes: it gives nothing back."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(120)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def env(
    new_env: NewEnv, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    with RedisServer() as broker:  # its own, so that it holds no other tasks
        found = {
            **new_env(),
            **QUICK_START,
            "DOWNLOAD_RUNNER": "celery",
            "REDIS_URL": broker.start().url,
            "DOWNLOAD_ORIGINS": origin.url,
            "DOWNLOAD_TRIES": "1",
            "DOWNLOAD_HEARTBEAT_S": f"{HEARTBEAT_S}",
        }
        migrate(found)
        yield found


@pytest.fixture(scope="module")
def celery(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(env, tmp_path_factory.mktemp("celery") / "log")
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def site(env: dict[str, str], start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def order(site: Site, urls: list[str], threads: int = 4) -> dict[str, Any]:
    wanted = {"urls": [site.origin.url + path for path in urls], "threads": threads}
    answer = site.workers.ask(site.workers.find()[0], "POST", "/api/downloads", wanted)
    assert answer.status == 202, answer.body
    return answer.body


def test_a_celery_process_runs_the_job_and_every_worker_shows_it(
    site: Site, celery: CeleryWorker
) -> None:
    job = order(site, paths(20, 1000))
    assert job["owner_pid"] is None
    found = site.wait_for_state(job, "succeeded")
    assert found["owner_pid"] in celery.pids
    assert site.files(job) == expected(20, 1000)


def test_a_task_that_is_delivered_twice_changes_nothing(
    site: Site, celery: CeleryWorker, env: dict[str, str]
) -> None:
    job = order(site, [*paths(3, 1000), "/hang/x"])
    until(lambda: site.look(job)["files_done"] == 3, "3 files to be recorded", 120)
    before = site.look(job)
    command = [sys.executable, "-c", SEND, job["id"]]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, check=True)
    over = f"job {job['id']}: task ended: another process runs it"
    until(lambda: over in celery.output(), "the second task to end", 120)
    until(lambda: f"retry: {WAITS}" in celery.output(), "it to be there for a lost owner", 120)
    after = site.look(job)
    assert (after["owner_pid"], after["adoptions"]) == (before["owner_pid"], before["adoptions"])
    pid = site.workers.find()[1]
    assert site.workers.ask(pid, "POST", f"/api/downloads/{job['id']}/cancel").status == 202
    site.wait_for_state(job, "cancelled")
    assert site.files(job) == expected(3, 1000)


def test_a_job_outlives_the_process_that_ran_it(site: Site, celery: CeleryWorker) -> None:
    thing = Thing([Version(b"x" * 900_000, '"1"')], cuts=[600_000], hang=True)
    site.origin.things["killed"] = thing
    job = order(site, [*paths(5, 1000), "/thing/killed"], threads=2)
    until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 120)
    before = site.look(job)
    os.kill(before["owner_pid"], signal.SIGKILL)
    found = site.wait_for_state(job, "succeeded")
    assert found["owner_pid"] != before["owner_pid"]
    assert found["adoptions"] == before["adoptions"] + 1
    assert site.files(job) == {**expected(5, 1000), "killed": b"x" * 900_000}
    assert len(thing.asked) == 2
    assert thing.asked[1]["range"].startswith("bytes=")  # from the bytes on disk


def test_a_worker_that_ends_releases_its_job_to_the_next(
    site: Site, celery: CeleryWorker, env: dict[str, str], tmp_path: Path
) -> None:
    thing = Thing([Version(b"x" * 900_000, '"1"')], cuts=[600_000], hang=True)
    site.origin.things["handed"] = thing
    job = order(site, [*paths(5, 1000), "/thing/handed"], threads=2)
    until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 120)
    second = CeleryWorker(env, tmp_path / "log")
    try:
        celery.stop()  # SIGTERM: it does not wait for the file that hangs
        found = site.wait_for_state(job, "succeeded")
        assert found["owner_pid"] in second.pids
        assert thing.asked[1]["range"].startswith("bytes=")  # from the bytes on disk
    finally:
        second.stop()
        celery.start()


@pytest.fixture
def killed_env(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Return the environment of workers that will be killed, and leave files in TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="celery-") as name:  # short, because of sockets
        yield {**env, "TMPDIR": name}


@pytest.mark.soak  # a minute, until Celery gives a job out again
def test_what_killed_workers_had_comes_again_though_it_was_given_out_twice(
    site: Site,
    celery: CeleryWorker,
    env: dict[str, str],
    killed_env: dict[str, str],
    tmp_path: Path,
) -> None:
    thing = Thing([Version(b"x" * 900_000, '"1"')], cuts=[600_000], hang=True)
    site.origin.things["given-out-again"] = thing
    celery.stop()
    began = [CeleryWorker(killed_env, tmp_path / "first", visible_again_s=VISIBLE_AGAIN_S)]
    try:
        job = order(site, [*paths(5, 1000), "/thing/given-out-again"], threads=2)
        until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 120)
        wait_for_the_broker()
        # A worker that starts looks for what is overdue; one that runs does so every 100 s.
        began.append(CeleryWorker(killed_env, tmp_path / "second", visible_again_s=VISIBLE_AGAIN_S))
        over = f"job {job['id']}: task ended: another process runs it"
        until(lambda: any(over in it.output() for it in began), "it to be given out twice", 120)
        until(lambda: any(WAITS in it.output() for it in began), "the second to wait", 120)
        before = site.look(job)
        while began:
            began.pop().kill()
        wait_for_the_broker()
        began.append(CeleryWorker(env, tmp_path / "third", visible_again_s=VISIBLE_AGAIN_S))
        found = site.wait_for_state(job, "succeeded")
        assert found["owner_pid"] in began[0].pids
        assert found["adoptions"] == before["adoptions"] + 1
        assert site.files(job) == {**expected(5, 1000), "given-out-again": b"x" * 900_000}
        assert thing.asked[1]["range"].startswith("bytes=")  # from the bytes on disk
    finally:
        for worker in began:
            worker.stop()
        celery.start()


def wait_for_the_broker() -> None:
    """Wait until unacknowledged tasks may be delivered again."""
    due_s = clock.monotonic_s() + VISIBLE_AGAIN_S
    until(lambda: clock.monotonic_s() > due_s, "the broker's patience to end")


def test_a_paused_job_is_handed_over_again(site: Site, celery: CeleryWorker) -> None:
    thing = Thing([Version(b"x" * 900_000, '"1"')], cuts=[600_000], hang=True)
    site.origin.things["rested"] = thing
    job = order(site, ["/thing/rested"])
    until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 120)
    pid = site.workers.find()[0]
    site.workers.ask(pid, "POST", f"/api/downloads/{job['id']}/pause")
    until(lambda: site.look(job)["paused"], "the job to be paused", 120)
    assert site.workers.ask(pid, "POST", f"/api/downloads/{job['id']}/resume").status == 202
    assert site.wait_for_state(job, "succeeded")["owner_pid"] in celery.pids
