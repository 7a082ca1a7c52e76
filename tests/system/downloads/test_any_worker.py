"""Downloads under the real Gunicorn: one worker runs a job, every worker shows and ends it."""

from collections.abc import Iterator

import pytest

from cacheapp.processes.waiting import until
from tests.origin import Origin
from tests.system.conftest import NewEnv, StartGunicorn
from tests.system.downloads.parts import PATIENT, Site, expected, migrate, paths


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def site(new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    yield from _site("0", new_env, start_gunicorn, origin)


@pytest.fixture(scope="module")
def preloaded_site(
    new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin
) -> Iterator[Site]:
    yield from _site("1", new_env, start_gunicorn, origin)


def _site(
    preload: str, new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin
) -> Iterator[Site]:
    env = {
        **new_env(),
        **PATIENT,
        "PRELOAD": preload,
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_TRIES": "1",
    }
    migrate(env)
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


@pytest.fixture(params=["site", "preloaded_site"])
def any_site(request: pytest.FixtureRequest) -> Site:
    """Return a site whose workers load the project, and one forked from a master that did."""
    found: Site = request.getfixturevalue(request.param)
    return found


def test_every_worker_shows_the_job_that_one_of_them_runs(any_site: Site) -> None:
    site = any_site
    owner = site.workers.find()[1]
    job = site.order([*paths(20, 50_000), "/hang/last"], threads=4, pid=owner)

    def all_but_one() -> bool:
        return bool(site.look(job)["files_done"] == 20)

    until(all_but_one, "20 files to be recorded", 120)
    answers = site.workers.each("GET", f"/api/downloads/{job['id']}")
    assert len(answers) == 4
    for pid, answer in answers.items():
        assert answer.body["pid"] == pid
        assert answer.body["owner_pid"] == owner
        assert answer.body["state"] == "running"
        assert (answer.body["files_done"], answer.body["files_total"]) == (20, 21)
        assert answer.body["bytes_done"] == 20 * 50_000
    site.workers.ask(owner, "DELETE", f"/api/downloads/{job['id']}")
    site.wait_for_state(job, "cancelled")
    assert site.files(job) == expected(20, 50_000)


def test_a_job_succeeds_with_every_file_complete(site: Site) -> None:
    job = site.order(paths(200, 10_000), threads=32)
    found = site.wait_for_state(job, "succeeded")
    assert (found["files_done"], found["files_failed"], found["errors"]) == (200, 0, [])
    assert found["bytes_done"] == 200 * 10_000
    assert found["created_at"] <= found["started_at"] <= found["finished_at"]
    assert site.files(job) == expected(200, 10_000)


def test_each_failed_file_has_its_error_and_the_rest_is_kept(site: Site) -> None:
    job = site.order([*paths(2, 1000), "/status/gone.bin?say=410+Gone", "/cut/half.bin"])
    found = site.wait_for_state(job, "failed")
    assert (found["files_done"], found["files_failed"]) == (2, 2)
    assert found["error"] == "2 of 4 files failed"
    assert found["errors"] == [
        {
            "url": f"{site.origin.url}/status/gone.bin?say=410+Gone",
            "name": "gone.bin",
            "error": "responded with 410 Gone",
        },
        {
            "url": f"{site.origin.url}/cut/half.bin",
            "name": "half.bin",
            "error": "ended after 500 of 1000 bytes",
        },
    ]
    assert site.files(job) == expected(2, 1000)


def test_any_worker_cancels_and_threads_that_wait_let_go(any_site: Site) -> None:
    site = any_site
    owner, other = site.workers.find()[:2]
    waiting = ["/hang/a", "/hang-in-body/b?bytes=5000000", "/trickle/c?bytes=50000"]
    job = site.order([*waiting, *paths(100, 1000)], threads=3, pid=owner)
    site.until_partials(job, 2)
    answer = site.workers.ask(other, "DELETE", f"/api/downloads/{job['id']}")
    assert (answer.status, answer.body["cancel_requested"]) == (202, True)
    found = site.wait_for_state(job, "cancelled")
    assert (found["files_done"], found["files_failed"]) == (0, 0)
    assert site.files(job) == {}
    again = site.workers.ask(other, "DELETE", f"/api/downloads/{job['id']}")
    assert (again.status, again.body["state"]) == (200, "cancelled")


def test_a_finished_job_cannot_be_cancelled(site: Site) -> None:
    job = site.order(paths(1, 10))
    site.wait_for_state(job, "succeeded")
    answer = site.workers.ask(site.workers.find()[2], "DELETE", f"/api/downloads/{job['id']}")
    assert answer.status == 409
    assert answer.body["error"] == (
        "the job has already succeeded; only queued, running and paused jobs can be cancelled"
    )
    assert site.files(job) == expected(1, 10)


def test_a_job_waits_for_its_turn_when_the_worker_has_no_threads_left(site: Site) -> None:
    owner = site.workers.find()[0]
    before = len(site.origin.asked)
    large = site.order([f"/hang/{n}" for n in range(200)], threads=200, pid=owner)
    until(lambda: len(site.origin.asked) == before + 200, "200 requests in flight", 120)
    small = site.order(paths(60, 100), threads=51, pid=owner)
    queued = site.order(paths(1, 100), threads=1, pid=owner)
    heartbeat = site.look(small)["heartbeat_at"]
    until(lambda: site.look(small)["heartbeat_at"] > heartbeat, "a sign of life", 120)
    assert site.look(small)["state"] == "queued"
    assert site.look(queued)["state"] == "queued"  # in turn: it does not overtake
    site.workers.ask(owner, "DELETE", f"/api/downloads/{large['id']}")
    site.wait_for_state(large, "cancelled")
    assert site.wait_for_state(small, "succeeded")["files_done"] == 60
    site.wait_for_state(queued, "succeeded")


def test_a_queued_job_can_be_cancelled(site: Site) -> None:
    owner, other = site.workers.find()[:2]
    before = len(site.origin.asked)
    large = site.order([f"/hang/{n}" for n in range(200)], threads=200, pid=owner)
    until(lambda: len(site.origin.asked) == before + 200, "200 requests in flight", 120)
    queued = site.order(paths(5, 100), pid=owner)
    assert site.workers.ask(other, "DELETE", f"/api/downloads/{queued['id']}").status == 202
    found = site.wait_for_state(queued, "cancelled")
    assert (found["files_done"], found["started_at"]) == (0, None)
    site.workers.ask(other, "DELETE", f"/api/downloads/{large['id']}")
    site.wait_for_state(large, "cancelled")


def test_a_job_that_fetches_from_its_own_server_does_not_block_it(site: Site) -> None:
    owner = site.workers.find()[0]
    urls = [
        f"{site.server.url}/api/demo/file/{n}?bytes=1000&delay_ms=50"
        for n in range(200)  # with more threads than the four workers have together
    ]
    answer = site.workers.ask(owner, "POST", "/api/downloads", {"urls": urls, "threads": 64})
    found = site.wait_for_state(answer.body, "succeeded")
    assert found["files_done"] == 200


def test_the_newest_jobs_are_listed(site: Site) -> None:
    jobs = [site.order(paths(1, 10)) for _ in range(3)]
    for job in jobs:
        site.wait_for_state(job, "succeeded")
    for answer in site.workers.each("GET", "/api/downloads?limit=2").values():
        assert [job["id"] for job in answer.body["jobs"]] == [jobs[2]["id"], jobs[1]["id"]]
