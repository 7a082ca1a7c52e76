import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.cache.backends.base import BaseCache
from django.utils.module_loading import import_string

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.probe import examine
from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Workers
from project.settings import CACHES
from tests.system.conftest import WORKERS

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"

shared = pytest.mark.parametrize("alias", ["lmdb", "disk", "redis"])


@pytest.fixture(scope="module")
def workers(gunicorn: GunicornServer) -> Iterator[Workers]:
    with Workers(gunicorn.url, WORKERS, per_worker=4) as found:
        found.find()
        yield found


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A key of this test's own."""
    return f"/api/cache/{{}}/{abs(hash(request.node.name))}"


def write(workers: Workers, pid: int, path: str, **body: Any) -> None:
    assert workers.ask(pid, "PUT", path, body).status == 200


def read(workers: Workers, path: str) -> dict[int, Any]:
    """Return what every worker reads; a worker that has nothing is left out."""
    answers = workers.each("GET", path)
    assert {answer.status for answer in answers.values()} == {200}
    return {pid: answer.body["value"] for pid, answer in answers.items() if answer.body["hit"]}


def test_all_workers_answer(workers: Workers, gunicorn: GunicornServer) -> None:
    children = [child.pid for child in psutil.Process(gunicorn.pid).children()]
    answers = workers.each("GET", "/api/worker")
    assert sorted(answers) == sorted(children)
    assert len(answers) == WORKERS
    for pid, answer in answers.items():
        assert answer.body["pid"] == pid
        assert 2 <= answer.body["threads"] <= psutil.Process(pid).num_threads()


def test_a_worker_counts_its_own_uptime(workers: Workers) -> None:
    # With preload the project was loaded before there was a worker: that does not count.
    for pid, answer in workers.each("GET", "/api/worker").items():
        assert 0 < answer.body["uptime_s"] <= age_s(pid)


def age_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def test_locmem_gives_each_worker_its_own_truth(workers: Workers) -> None:
    finding = examine(workers, "locmem", LOCMEM)
    assert finding.verdict is SharingVerdict.BROKEN
    assert finding.sight
    assert finding.count
    assert finding.race
    assert finding.sight.seen_by == [finding.sight.writer]
    assert set(finding.sight.seen) == set(workers.pids)
    # Every increment was acknowledged, and each worker counted its own alone.
    assert len(finding.count.sums) == 200
    assert finding.count.counted == finding.count.by_worker
    assert set(finding.count.counted) == set(workers.pids)
    assert sum(finding.count.counted.values()) == 200
    assert finding.race.winners == [WORKERS] * 5


def test_locmem_deletes_in_one_worker_only(workers: Workers, path: str) -> None:
    path = path.format("locmem")
    for pid in workers.pids:
        write(workers, pid, path, value=pid)
    assert read(workers, path) == {pid: pid for pid in workers.pids}
    first, second, *others = workers.pids
    assert workers.ask(first, "DELETE", path).body["hit"] is True
    assert workers.ask(second, "DELETE", "/api/cache/locmem").body["removed"] == 1
    assert read(workers, path) == {pid: pid for pid in others}


@shared
def test_shared_backends_give_all_workers_one_truth(workers: Workers, alias: str) -> None:
    finding = examine(workers, alias, "")
    assert finding.verdict is SharingVerdict.SHARED, finding.why
    assert finding.sight
    assert finding.count
    assert finding.race
    assert finding.sight.seen_by == workers.pids
    assert finding.count.sums == list(range(1, 201))  # each was told a sum of its own
    assert finding.count.counted == dict.fromkeys(workers.pids, 200)
    assert set(finding.count.by_worker) == set(workers.pids)
    assert finding.race.winners == [1] * 5
    assert finding.race.contenders == 4 * WORKERS


@shared
def test_a_set_is_seen_by_all_whoever_wrote(workers: Workers, alias: str, path: str) -> None:
    path = path.format(alias)
    for writer in workers.pids:
        write(workers, writer, path, value={"from": writer, "none": None, "list": [1, 2.5, "ü"]})
        expected = {"from": writer, "none": None, "list": [1, 2.5, "ü"]}
        assert read(workers, path) == dict.fromkeys(workers.pids, expected)


@shared
def test_a_delete_is_seen_by_all(workers: Workers, alias: str, path: str) -> None:
    path = path.format(alias)
    first, second, *_ = workers.pids
    write(workers, first, path, value=None)
    assert read(workers, path) == dict.fromkeys(workers.pids)  # a cached None is a hit
    assert workers.ask(second, "DELETE", path).body["hit"] is True
    assert read(workers, path) == {}
    assert workers.ask(first, "DELETE", path).body["hit"] is False


@shared
def test_a_touch_that_shortens_is_seen_by_all(workers: Workers, alias: str, path: str) -> None:
    path = path.format(alias)
    first, second, *_ = workers.pids
    write(workers, first, path, value=1, timeout=None)
    assert workers.ask(second, "POST", f"{path}/touch", {"timeout": 1}).body["hit"] is True
    until(lambda: not read(workers, path), "all workers to find it expired")
    write(workers, first, path, value=1, timeout=None)
    assert workers.ask(second, "POST", f"{path}/touch", {"timeout": 0}).body["hit"] is True
    assert read(workers, path) == {}
    assert workers.ask(second, "POST", f"{path}/touch", {"timeout": 1}).body["hit"] is False


@shared
def test_a_touch_that_prolongs_is_seen_by_all(workers: Workers, alias: str, path: str) -> None:
    path = path.format(alias)
    first, second, *_ = workers.pids

    def touched() -> bool:  # again if it had expired: then this machine was too slow
        write(workers, first, path, value=1, timeout=4)
        touch = workers.ask(second, "POST", f"{path}/touch", {"timeout": 300})
        return bool(touch.body["hit"])

    until(touched, "the touch of a key that has not expired")
    write(workers, first, f"{path}-later", value=1, timeout=4)  # expires after the first would
    until(lambda: not read(workers, f"{path}-later"), "the old deadline to pass")
    assert read(workers, path) == dict.fromkeys(workers.pids, 1)


@shared
def test_a_clear_is_seen_by_all_and_leaves_other_keys(
    workers: Workers, gunicorn_env: dict[str, str], alias: str, path: str
) -> None:
    path = path.format(alias)
    theirs = application_cache(gunicorn_env, alias)
    theirs.set("k", "the application's", None)
    for pid in workers.pids:
        write(workers, pid, f"{path}-{pid}", value=pid)
    assert workers.ask(workers.pids[1], "DELETE", f"/api/cache/{alias}").body["removed"] >= WORKERS
    for pid in workers.pids:
        assert read(workers, f"{path}-{pid}") == {}
    assert theirs.get("k") == "the application's"


def application_cache(env: dict[str, str], alias: str) -> BaseCache:
    """Return the alias as the application behind the server uses it, opened by this process."""
    backend, location = {
        "lmdb": ("cacheapp.backends.LMDBCache", Path(env["DATA_DIR"]) / "cache"),
        "disk": ("cacheapp.backends.DiskCache", Path(env["DATA_DIR"]) / "cache"),
        "redis": ("cacheapp.backends.RedisCache", env["REDIS_URL"]),
    }[alias]
    # With another limit it would bring the workers into a directory of its own.
    options = CACHES["lmdb"]["OPTIONS"] if alias == "lmdb" else {}
    cache: BaseCache = import_string(backend)(
        location, {"KEY_PREFIX": "cacheapp", "OPTIONS": options}
    )
    return cache
