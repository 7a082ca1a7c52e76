"""The samples behind the charts: who writes them, and what they leave out."""

from pathlib import Path

import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.demo import stats_ring, worker_agent
from cacheapp.demo.stats_ring import Sample, Sampler
from cacheapp.processes.waiting import until


@pytest.fixture(autouse=True)
def _own_state(settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path}


def test_a_sample_has_the_counters_of_every_alias_but_not_the_pages_reads() -> None:
    before = stats_ring.take_sample().counts["lmdb"]
    caches["lmdb"].get("nothing")
    for _ in range(3):
        worker_agent.handle({"do": "read", "alias": "lmdb", "keys": ["_page-nothing"]})
    after = stats_ring.take_sample().counts["lmdb"]
    assert after["misses"] - before["misses"] == 1
    assert after["bytes_limit"] > after["bytes_used"] >= 0
    assert "locmem" not in stats_ring.take_sample().counts


def test_the_file_is_bounded_in_number_and_in_time() -> None:
    now_s = clock.wall_s()
    stats_ring.add(Sample(now_s - 10_000, {}))
    for number in range(200):
        stats_ring.add(Sample(now_s - 200 + number, {"a": {"hits": number}}))
    found = stats_ring.samples()
    assert len(found) == 181
    assert found[-1].counts == {"a": {"hits": 199}}


def test_a_file_of_another_version_has_no_samples(tmp_path: Path) -> None:
    (tmp_path / "stats-ring.json").write_text('{"version": 2}')
    assert stats_ring.samples() == []


def test_one_worker_samples_and_another_follows_when_it_ends() -> None:
    first, second = Sampler(0.01), Sampler(0.01)
    first.start()
    until(stats_ring.samples, "a sample of the first one", 60)
    first.stop()
    last_s = stats_ring.samples()[-1].at_s  # their number is bounded, and may be the most already
    second.start()

    def newer() -> int:
        return sum(one.at_s > last_s for one in stats_ring.samples())

    until(lambda: newer() > 1, "samples of the second one", 60)
    second.stop()
