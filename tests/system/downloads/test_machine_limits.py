"""What all workers of a machine share: a limit of threads, and counters that add up."""

from collections.abc import Iterator

import pytest

from cacheapp.processes.waiting import until
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.parts import PATIENT, Site, migrate, paths

SLOTS = 6


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def site(new_env: NewEnv, start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    env = {
        **new_env(),
        **QUICK_START,
        **PATIENT,
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_MAX_MACHINE_THREADS": str(SLOTS),
        "DOWNLOAD_TRIES": "1",
    }
    migrate(env)
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def test_jobs_of_two_workers_share_the_threads_of_the_machine_and_are_counted_together(
    site: Site,
) -> None:
    one, other = site.workers.find()[:2]
    asked = site.origin.asked
    hanging = site.order([f"/hang/{n}" for n in range(10)], threads=10, pid=one)
    until(lambda: len(asked) == SLOTS, "as many requests as there are slots", 120)
    waiting = site.order([*paths(20, 1000), "/cut/x?bytes=100"], threads=10, pid=other)
    until(lambda: site.look(waiting)["state"] == "running", "the other job to be begun", 120)
    heartbeat = site.look(waiting)["heartbeat_at"]
    until(lambda: site.look(waiting)["heartbeat_at"] > heartbeat, "a look for a slot", 120)
    assert len(asked) == SLOTS  # a job of its own gives a worker no more threads
    site.workers.ask(other, "DELETE", f"/api/downloads/{hanging['id']}")
    site.wait_for_state(hanging, "cancelled")
    found = site.wait_for_state(waiting, "failed")
    assert (found["files_done"], found["files_failed"]) == (20, 1)

    def counted() -> list[dict[str, int]]:
        answers = site.workers.each("GET", "/api/stats").values()
        numbers = [answer.body["downloads"] for answer in answers]
        return numbers if all(it["threads_now"] == it["jobs_now"] == 0 for it in numbers) else []

    numbers = until(counted, "all to be at rest", 120)
    assert len(numbers) == 4
    for found in numbers:  # every worker returns the same
        assert (found["files_done"], found["files_failed"]) == (20, 1)
        assert (found["bytes_done"], found["jobs_started"]) == (20 * 1000, 2)
        assert (found["adoptions"], found["releases"], found["retries"]) == (0, 0, 0)
