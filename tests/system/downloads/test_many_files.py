"""A job of many files keeps its owner, and its worker responds to other requests."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cacheapp.processes.servers import GunicornServer
from tests.origin import Origin
from tests.system.conftest import NewEnv
from tests.system.downloads.parts import FINISHED, ROOT, Site, migrate

WITHIN_S = 3000.0
P99_S = 30.0


@pytest.fixture
def site(new_env: NewEnv) -> Iterator[Site]:
    with Origin() as origin:
        env = {**new_env(), "DOWNLOAD_ORIGINS": origin.url, "DOWNLOAD_HEARTBEAT_S": "20"}
        migrate(env)
        with GunicornServer("project.wsgi:application", ROOT, env) as server:
            found = Site(server.start(), env, origin)
            yield found
            found.workers.close()


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(900)], id="10,000 files"),
        pytest.param(
            10, marks=[pytest.mark.soak, pytest.mark.timeout(3600)], id="10 jobs of 10,000 files"
        ),
    ],
)
def test_no_other_worker_adopts_a_job_of_many_files(site: Site, jobs: int) -> None:
    pid = site.workers.find()[0]
    paths = [f"/file/{number}?bytes=100" for number in range(10_000)]
    orders = [site.order(paths, threads=32, pid=pid) for _ in range(jobs)]
    took_s: list[float] = []
    for order in orders:
        found = _until_ended(site, order, pid, took_s)
        assert (found["state"], found["adoptions"], found["owner_pid"]) == ("succeeded", 0, pid)
    # Requests share the interpreter with 32 threads that transfer files.
    assert statistics.quantiles(took_s, n=100)[-1] < P99_S


def _until_ended(
    site: Site, order: dict[str, Any], pid: int, took_s: list[float]
) -> dict[str, Any]:
    """Read the job from its own worker until it has ended; add the time of each request."""
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s:
        began_s = time.perf_counter()
        found = site.look(order, pid)
        took_s.append(time.perf_counter() - began_s)
        assert not found["owner_lost"], found
        if found["state"] in FINISHED:
            return found
    raise AssertionError(f"the job did not end within {WITHIN_S:g} s: {found}")
