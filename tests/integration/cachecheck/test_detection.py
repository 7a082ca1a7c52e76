"""How much the check finds, and that it accuses no right cache under load: for each release.

`python -m benchmarks.consistency.detection` runs all workloads on all right caches, and can be interrupted.
"""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.consistency.detection.runs import broken
from cacheapp.cachecheck.examine import PROCESSES, SYNC
from cacheapp.cachecheck.verdicts import PropertyVerdict
from tests.integration.cachecheck.conftest import Examine
from tests.integration.cachecheck.held_out import HELD_OUT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3_600)]


@pytest.mark.parametrize("name", list(HELD_OUT))
def test_a_broken_cache_is_found_in_nine_of_ten_runs(name: str) -> None:
    results: list[dict[str, Any]] = []
    broken(name, range(10), 2.0, results.append)
    assert sum(one["found"] is not None for one in results) >= 9, results


def burn() -> None:
    while True:
        pass


@pytest.fixture
def load() -> Iterator[None]:
    """Keep the processors busy."""
    burners = [multiprocessing.get_context("spawn").Process(target=burn) for _ in range(4)]
    for one in burners:
        one.start()
    yield
    for one in burners:
        one.kill()
        one.join()


@pytest.mark.usefixtures("load")
def test_a_right_cache_is_not_accused_in_two_hundred_runs_under_load(examine: Examine) -> None:
    workloads = {**SYNC, **PROCESSES}
    for number in range(200):
        name = list(workloads)[number % len(workloads)]
        use_async = name in SYNC and number // len(workloads) % 2 == 1
        found = examine("Right", workloads[name], use_async=use_async)
        accused = [one for one in found.values() if one.verdict is PropertyVerdict.BROKEN]
        assert accused == [], (number, name)
