"""The workers of a machine share one limit of bytes per second, also when one of them is killed."""

import psutil

from cacheapp import clock
from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv
from tests.system.downloads.parts import ROOT, SOON_LOST, Site, migrate, paths

RATE = 1_500_000
SIZE = 700_000


def test_jobs_of_two_workers_share_the_rate_of_the_machine_also_after_one_was_killed(
    new_env: NewEnv,
) -> None:
    with Origin() as origin:
        env = {
            **new_env(),
            **QUICK_START,
            **SOON_LOST,
            "DOWNLOAD_ORIGINS": origin.url,
            "DOWNLOAD_MAX_RATE": f"{RATE}B/s",
        }
        migrate(env)
        with GunicornServer("project.wsgi:application", ROOT, env) as server:
            site = Site(server.start(), env, origin)
            try:
                _kill_one_of_two(site)
            finally:
                site.workers.close()


def _kill_one_of_two(site: Site) -> None:
    one, other = site.workers.find()[:2]
    # Its job does not end before the kill, however late that comes.
    site.origin.things["held"] = Thing([Version(b"x" * 900, '"v"')], cuts=[500], hang=True)
    began_s = clock.monotonic_s()
    jobs = [
        site.order([*paths(3, SIZE), *more], threads=4, pid=pid)
        for pid, more in ((one, ["/thing/held"]), (other, []))
    ]

    def received() -> list[int]:
        return [site.look(job)["bytes_done"] for job in jobs]

    until(lambda: all(received()), "bytes of both jobs", 120)
    psutil.Process(one).kill()
    done = [site.wait_for_state(job, "succeeded")["files_done"] for job in jobs]
    assert done == [4, 3]
    assert clock.monotonic_s() - began_s >= 6 * SIZE / RATE - 0.2
    assert site.look(jobs[0])["adoptions"] == 1
