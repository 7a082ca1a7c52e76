"""A job whose worker ends is resumed by another one from the bytes on disk."""

import contextlib
import itertools
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body
from tests.system.conftest import QUICK_START, WORKERS, NewEnv
from tests.system.downloads.parts import (
    ENDING,
    ROOT,
    SOON_LOST,
    Site,
    expected,
    migrate,
    paths,
)
from tests.webhook_receiver import WebhookReceiver

SIZE, CUT = 1_500_000, 1_000_000
READ = 2**18  # what one read returns at most: the part of a file that a kill may lose
_numbers = itertools.count()


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as server:
        yield server


@pytest.fixture(scope="module")
def env(new_env: NewEnv, origin: Origin, receiver: WebhookReceiver) -> dict[str, str]:
    found = {
        **new_env(),
        **QUICK_START,
        **SOON_LOST,
        "DJANGO_SETTINGS_MODULE": "tests.system.downloads.patient_settings",
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_WEBHOOKS": json.dumps({receiver.url: "a key of the tests"}),
        "DOWNLOAD_WEBHOOK_S": "1",
    }
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


class Half:
    """A job of 10 small files that complete and 3 large ones whose first transfer hangs in the middle.

    With `hangs_again`, their later transfers hang too, at their begin.
    """

    def __init__(self, site: Site, *, hangs_again: bool = False) -> None:
        later = [0] * WORKERS if hangs_again else []
        self.site = site
        self.things = {f"big{next(_numbers)}": body({"bytes": str(SIZE)}) for _ in range(3)}
        for name, whole in self.things.items():
            version = Version(whole, f'"{name}"')
            site.origin.things[name] = Thing([version], cuts=[CUT, *later], hang=True)
        self.asked_before = len(site.origin.asked)
        names = [f"/thing/{name}" for name in self.things]
        self.job = site.order([*paths(10, 5000), *names], threads=13)
        until(lambda: site.look(self.job)["files_done"] == 10, "10 files to be recorded", 120)
        until(self._has_arrived, "what comes before the cuts", 120)

    def _has_arrived(self) -> bool:
        directory = self.site.downloads / self.job["id"]
        sizes = [path.stat().st_size for path in directory.glob(".*/*.part")]
        return len(sizes) == 3 and min(sizes) >= CUT - READ

    @property
    def owner(self) -> psutil.Process:
        return psutil.Process(self.job["owner_pid"])

    def assert_resumed(self, site: Site, most: int = 1) -> dict[str, Any]:
        """Wait for its end; check that every file is complete and nothing was fetched twice without need.

        `most`: how often it may have been adopted.
        """
        found = site.wait_for_state(self.job, "succeeded")
        assert (found["files_done"], found["files_failed"], found["error"]) == (13, 0, "")
        assert found["bytes_done"] == found["bytes_total"] == 10 * 5000 + 3 * SIZE
        assert 1 <= found["adoptions"] <= most
        assert site.files(self.job) == {**expected(10, 5000), **self.things}
        asked = Counter(path for _, path in site.origin.asked[self.asked_before :])
        assert [asked.pop(path) for path in paths(10, 5000)] == [1] * 10
        assert set(asked) == {f"/thing/{name}" for name in self.things}
        for name in self.things:
            first, *later = site.origin.things[name].asked
            assert "range" not in first
            assert 1 <= len(later) <= found["adoptions"]
            for fields in later:
                again = fields["range"].removeprefix("bytes=").removesuffix("-")
                assert int(again) >= CUT - READ
        return found


def test_another_worker_resumes_the_job_of_a_killed_one(site: Site) -> None:
    half = Half(site)
    half.owner.kill()
    found = half.assert_resumed(site)
    assert found["owner_pid"] != half.job["owner_pid"]
    for answer in site.workers.each("GET", f"/api/downloads/{half.job['id']}").values():
        assert answer.body["state"] == "succeeded"
    until(lambda: "lost by process" in site.server.output(), "the log to say so")


def test_a_job_whose_notifier_is_killed_is_notified_by_another_worker(
    site: Site, origin: Origin, receiver: WebhookReceiver
) -> None:
    receiver.script = ["hang"]
    wanted = {"urls": [origin.url + paths(1, 100)[0]], "webhook": f"{receiver.url}/ended"}
    job = site.workers.ask(site.workers.find()[0], "POST", "/api/downloads", wanted).body
    until(lambda: receiver.received, "the first attempt", 120)
    killed = _peer(site, receiver.port)
    if killed is not None:  # else its attempt has just ended by its deadline: it counts as failed
        killed.kill()

    def delivered() -> dict[str, Any]:
        with contextlib.suppress(*ENDING):
            found = site.look(job)
            return found if found["webhook"]["state"] == "delivered" else {}
        return {}

    found = until(delivered, "another worker to notify", 120)
    assert found["state"] == "succeeded"
    # An attempt may have ended before its request was sent.
    assert found["webhook"]["tries"] >= len(receiver.received) >= 2
    ids = {it.headers["webhook-id"] for it in receiver.received}
    assert ids == {found["webhook"]["event_id"]}


def _peer(site: Site, port: int) -> psutil.Process | None:
    """Return the worker that has a connection to a port."""
    for process in psutil.Process(site.server.pid).children():
        for it in process.net_connections("tcp"):
            if it.raddr and it.raddr.port == port:
                return process
    return None


def test_a_locked_database_does_not_hold_up_a_worker_that_ends(
    site: Site, env: dict[str, str]
) -> None:
    half = Half(site)
    worker = half.owner
    database = sqlite3.connect(
        Path(env["DATA_DIR"]) / "db.sqlite3", timeout=60, isolation_level=None
    )
    with contextlib.closing(database):
        database.execute("BEGIN IMMEDIATE")
        worker.terminate()
        worker.wait(120)  # far less than it would wait for the lock
        database.execute("ROLLBACK")
    half.assert_resumed(site)


def test_a_reload_releases_jobs_and_another_worker_adopts_them_at_once(site: Site) -> None:
    half = Half(site)
    old = site.workers.find()
    site.server.send(signal.SIGHUP)  # each old worker gets a SIGTERM
    # One that has not got it yet may adopt the job, and then release it too.
    half.assert_resumed(site, most=WORKERS)
    # Released by the worker itself, not found by its missing heartbeat.
    assert f"job {half.job['id']}: adopted; it was released" in site.server.output()
    released = f"job {half.job['id']}: released, 10 of 13 files done"
    until(lambda: released in site.server.output(), "the log to say so")
    until(lambda: not set(old) & set(site.workers.find()), "the old workers to go", 120)
    site.wait_for_state(site.order(paths(5, 100)), "succeeded")


def test_a_cancel_request_survives_the_kill_of_its_worker(
    site: Site,
) -> None:
    half = Half(site, hangs_again=True)  # else one that adopts the job before could complete it
    _suspend(half.owner)  # so that it cannot apply the request
    answer = site.ask_any("DELETE", f"/api/downloads/{half.job['id']}")
    assert answer.status == 202
    half.owner.kill()
    found = site.wait_for_state(half.job, "cancelled")
    assert (found["files_done"], found["adoptions"]) == (10, 1)
    until(lambda: site.files(half.job) == expected(10, 5000), "partial files to go")


def _suspend(worker: psutil.Process) -> None:
    worker.suspend()
    until(lambda: worker.status() == psutil.STATUS_STOPPED, "the worker to stop")


def test_jobs_resume_after_all_workers_were_killed_and_started_again(
    new_env: NewEnv, origin: Origin
) -> None:
    env = {**new_env(), **QUICK_START, **SOON_LOST, "DOWNLOAD_ORIGINS": origin.url}
    migrate(env)
    with _site(env, origin) as killed:
        half = Half(killed)
        master = psutil.Process(killed.server.pid)
        family = [master, *master.children(recursive=True)]
        for process in family:
            process.suspend()  # or the master would replace the first before the last is dead
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=60)
    with _site(env, origin) as again:
        half.assert_resumed(again)


def test_jobs_resume_after_a_stop_and_a_start(new_env: NewEnv, origin: Origin) -> None:
    env = {
        **new_env(),
        **QUICK_START,
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_HEARTBEAT_S": "600",
    }
    migrate(env)
    with _site(env, origin) as stopped:
        half = Half(stopped)
        stopped.workers.close()
        stopped.server.send(signal.SIGTERM)
        assert stopped.server.process is not None
        assert stopped.server.process.wait(120) == 0
    with _site(env, origin) as again:
        # At once, without waiting for a heartbeat. As above, one of those that end may have had it.
        half.assert_resumed(again, most=WORKERS)


def test_a_worker_that_was_suspended_too_long_writes_nothing_that_counts(site: Site) -> None:
    half = Half(site)
    owner = half.owner
    _suspend(owner)
    try:

        def done() -> dict[str, Any]:
            answer = site.ask_any("GET", f"/api/downloads/{half.job['id']}")
            return answer.body if answer.body["state"] == "succeeded" else {}

        found = until(done, "another worker to do the rest", 120)
        site.until_cleared(half.job)
        directory = site.downloads / half.job["id"]
        written = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    finally:
        owner.resume()
    assert half.assert_resumed(site)["adoptions"] == 1
    until(lambda: "lost, 10 files done" in site.server.output(), "the late owner to notice", 120)
    assert site.look(half.job, owner.pid) == {**found, "pid": owner.pid}
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == written


def test_each_worker_logs_an_unmigrated_database_once_and_keeps_running(
    new_env: NewEnv, origin: Origin
) -> None:
    env = {
        **new_env(),
        **QUICK_START,
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_HEARTBEAT_S": "0.3",
    }
    with _site(env, origin) as site:
        said = "jobs not read: no such table: cacheapp_downloads_downloadjob; was `manage.py migrate` run?"
        until(lambda: site.server.output().count(said) == 4, "each worker to say it", 120)
        for _ in range(20):
            assert len(site.workers.find()) == 4
        assert site.server.output().count(said) == 4
        migrate(env)
        until(lambda: site.server.output().count("the database responds") == 4, "them to see it")
        site.wait_for_state(site.order(paths(5, 100)), "succeeded")
