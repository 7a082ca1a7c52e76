"""`/metrics` of each of four workers under load: equal sums that only grow, also after a kill."""

import itertools
import os
import signal

from prometheus_client.parser import text_string_to_metric_families

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Connection, Workers
from tests.system.conftest import QUICK_START, ROOT, WORKERS, NewEnv

ROUNDS = 5
ALIASES = {"lmdb": "default", "disk": "disk", "redis": "redis"}  # equal entries: the first name
Counts = dict[tuple[str, ...], float]


def _scrape(connection: Connection) -> Counts:
    """Return what only grows: counters and histograms."""
    http = connection._http  # noqa: SLF001 (not JSON)
    http.request("GET", "/metrics")
    with http.getresponse() as response:
        assert response.status == 200
        text = response.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type != "gauge"
        for sample in family.samples
    }


def _work(number: int, connection: Connection) -> list[Counts]:
    """Use each cache; return what was scraped between."""
    scraped = []
    for turn in range(ROUNDS):
        for alias in ALIASES:
            path = f"/api/cache/{alias}/{number}"
            assert connection.ask("PUT", path, {"value": turn}).status == 200
            assert connection.ask("GET", path).body["hit"]
            assert not connection.ask("GET", f"/api/cache/{alias}/missing").body["hit"]
        scraped.append(_scrape(connection))
    return scraped


def _assert_growing(scraped: list[Counts]) -> None:
    for earlier, later in itertools.pairwise(scraped):
        assert {name for name, count in earlier.items() if later[name] < count} == set()


def _assert_equal_sums(workers: Workers, calls: int) -> Counts:
    found = workers.together(lambda _, connection: _scrape(connection))
    assert len(found) == WORKERS
    assert all(counts == found[0] for counts in found)
    for alias in ALIASES.values():
        of_alias = {key[0]: value for key, value in found[0].items() if key[1:2] == (alias,)}
        for name in ("sets", "hits", "misses"):
            assert of_alias[f"cacheapp_cache_{name}_total"] == calls
        duration = "cacheapp_cache_operation_duration_seconds_count"
        assert found[0][duration, alias, "set"] == calls
        assert found[0][duration, alias, "get"] == 2 * calls
        assert found[0]["cacheapp_cache_operation_errors_total", alias, "other"] == 0
    return found[0]


def test_every_worker_gives_the_machines_sum_also_after_a_kill(new_env: NewEnv) -> None:
    # Not the fixture of other tests: it takes a killed worker for a crash.
    env = {**new_env(), **QUICK_START}
    server = GunicornServer("project.wsgi:application", ROOT, env)
    with server, Workers(server.start().url, WORKERS) as workers:
        for scraped in workers.together(_work):
            _assert_growing(scraped)
        before = _assert_equal_sums(workers, WORKERS * ROUNDS)
        victim = workers.pids[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in workers.find(), "the worker's successor", 120)
        for scraped in workers.together(_work):
            _assert_growing([before, *scraped])
        _assert_equal_sums(workers, 2 * WORKERS * ROUNDS)
