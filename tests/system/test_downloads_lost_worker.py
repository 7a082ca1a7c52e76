"""What becomes of a job whose worker ends: by a kill, and by an orderly stop."""

import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cacheapp.lab.servers import GunicornServer
from cacheapp.lab.waiting import until
from tests.origin import Origin
from tests.system.conftest import NewEnv
from tests.system.downloading import ROOT, Site, expected, migrate, paths


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def env(new_env: NewEnv, origin: Origin) -> dict[str, str]:
    found = {**new_env(), "DOWNLOAD_ORIGINS": origin.url}
    migrate(found)
    return found


@contextlib.contextmanager
def _site(env: dict[str, str], origin: Origin) -> Iterator[Site]:
    # Not the fixture of other tests: it takes a killed worker for a crash.
    with GunicornServer("project.wsgi:application", ROOT, env) as server:
        site = Site(server.start(), env, origin)
        try:
            yield site
        finally:
            site.workers.close()


@pytest.fixture(scope="module")
def site(env: dict[str, str], origin: Origin) -> Iterator[Site]:
    """One site for all: what each test ends is replaced by Gunicorn."""
    with _site(env, origin) as found:
        yield found


def _half_done(site: Site) -> dict[str, Any]:
    """Start a job, and return it when 10 files are whole and recorded, and 3 are on their way."""
    waiting = ["/hang-in-body/a?bytes=900000", "/trickle/b?bytes=9999", "/hang-in-body/c?bytes=99"]
    job = site.order([*paths(10, 5000), *waiting], threads=3)
    site.until_partials(job, 3)
    until(lambda: site.look(job)["files_done"] == 10, "10 files to be recorded", 30)
    return job


def _assert_given_up(site: Site, job: dict[str, Any], found: dict[str, Any]) -> None:
    assert (found["files_done"], found["files_failed"]) == (10, 3)
    assert found["bytes_done"] == 10 * 5000
    assert [error["error"] for error in found["errors"]] == [found["error"]] * 3
    assert site.files(job) == expected(10, 5000)  # and no partial file


def test_the_job_of_a_killed_worker_is_reported_as_failed(site: Site) -> None:
    job = _half_done(site)
    psutil.Process(job["owner_pid"]).kill()
    found = site.wait_for_state(job, "failed")
    assert found["pid"] != job["owner_pid"]
    assert found["error"] == (
        f"its worker {job['owner_pid']} ended or hangs: no sign of life for 5 s"
    )
    _assert_given_up(site, job, found)
    for answer in site.workers.each("GET", f"/api/downloads/{job['id']}").values():
        assert answer.body["state"] == "failed"


def test_a_locked_database_does_not_hold_up_a_worker_that_ends(
    site: Site, env: dict[str, str]
) -> None:
    job = _half_done(site)
    worker = psutil.Process(job["owner_pid"])
    database = sqlite3.connect(Path(env["DATA_DIR"]) / "db.sqlite3", isolation_level=None)
    with contextlib.closing(database):
        database.execute("BEGIN IMMEDIATE")
        worker.terminate()
        worker.wait(18)  # it would wait 20 s for the lock
        assert site.files(job) == expected(10, 5000)  # partial files went all the same
        database.execute("ROLLBACK")
    found = site.wait_for_state(job, "failed")
    assert "no sign of life" in found["error"]
    _assert_given_up(site, job, found)


def test_a_reload_hands_over_and_the_new_workers_take_jobs(site: Site) -> None:
    job = _half_done(site)
    site.server.send(signal.SIGHUP)  # each old worker gets a SIGTERM
    found = site.wait_for_state(job, "failed")
    # Not the words of the heartbeat: the worker said it itself.
    assert found["error"] == f"its worker {job['owner_pid']} ended"
    _assert_given_up(site, job, found)
    until(lambda: job["owner_pid"] not in site.workers.find(), "the old worker to go", 30)
    site.wait_for_state(site.order(paths(5, 100)), "succeeded")


def test_a_stopped_server_leaves_no_job_running_behind(
    site: Site, env: dict[str, str], origin: Origin
) -> None:
    with _site(env, origin) as stopped:  # a second server on the same data
        job = _half_done(stopped)
        stopped.workers.close()
        stopped.server.send(signal.SIGTERM)
        assert stopped.server.process is not None
        assert stopped.server.process.wait(30) == 0
        assert site.files(job) == expected(10, 5000)
    found = site.look(job)  # the first answer is the end: there is nothing to wait for
    assert (found["state"], found["error"]) == ("failed", f"its worker {job['owner_pid']} ended")
    _assert_given_up(site, job, found)


def test_a_worker_that_was_suspended_too_long_writes_nothing_that_counts(site: Site) -> None:
    job = _half_done(site)
    owner = psutil.Process(job["owner_pid"])
    others = [pid for pid in site.workers.find() if pid != owner.pid]
    owner.suspend()
    try:

        def failed() -> dict[str, Any]:
            answer = site.workers.ask(others[0], "GET", f"/api/downloads/{job['id']}")
            return answer.body if answer.body["state"] == "failed" else {}

        found = until(failed, "the job to be given up", 30)
    finally:
        owner.resume()
    _assert_given_up(site, job, found)
    until(lambda: "lost, 10 whole" in site.server.output(), "the late owner to notice", 30)
    assert site.look(job, owner.pid) == {**found, "pid": owner.pid}
    assert site.files(job) == expected(10, 5000)
