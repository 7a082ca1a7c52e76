"""`GET /api/stats`: any worker gives the sum over all of them."""

import contextlib

from cacheapp.processes.workers import Workers
from tests.system.conftest import QUICK_START, WORKERS, NewEnv, StartGunicorn


def test_every_worker_gives_the_hosts_sum(new_env: NewEnv, start_gunicorn: StartGunicorn) -> None:
    server = start_gunicorn({**new_env(), **QUICK_START})
    with contextlib.closing(Workers(server.url, WORKERS)) as workers:
        for number, pid in enumerate(workers.find()):
            for alias in ("lmdb", "disk", "redis"):
                workers.ask(pid, "PUT", f"/api/cache/{alias}/key-{number}", {"value": 1})
                workers.ask(pid, "GET", f"/api/cache/{alias}/key-{number}")
                workers.ask(pid, "GET", f"/api/cache/{alias}/missing")
        for pid in workers.pids:
            said = workers.ask(pid, "GET", "/api/stats").body["aliases"]
            assert set(said) == {"lmdb", "disk", "redis"}
            for counted in said.values():
                assert counted["sets"] == WORKERS
                assert counted["hits"] == WORKERS
                assert counted["misses"] == WORKERS
                assert counted["breaker_open_now"] == 0
