"""A cluster that changes under four processes of load loses nothing but what the guarantees name."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads import cluster_faults
from cacheapp.processes.redis_cluster import PrivateCluster

Fault = Callable[[CheckRun, PrivateCluster], list[PropertyFinding]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as cluster:
        yield cluster.start()


@pytest.fixture(scope="module")
def run(cluster: PrivateCluster) -> Iterator[CheckRun]:
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        directory = Path(name)
        entry = {"BACKEND": "cacheapp.backends.RedisCache", "LOCATION": cluster.url}
        overrides = {
            "CACHES": {"default": {**entry, "OPTIONS": {"SOCKET_TIMEOUT": 30}}},
            "CACHEAPP": {"STATE_DIR": directory / "state"},
        }
        setup = Setup("default", overrides, threads=2, directory=directory)
        with Clients(setup, 4) as clients:
            yield CheckRun(clients, Journals(directory), "", seconds=1.0, private=True)


def _holds(run: CheckRun, cluster: PrivateCluster, fault: Fault) -> None:
    run.token = f"check-{uuid4().hex[:8]}"  # other keys each time
    (found,) = fault(run, cluster)
    assert found.verdict is PropertyVerdict.HOLDS, found


@pytest.mark.parametrize(
    "fault",
    [cluster_faults.handover, cluster_faults.slots_move, cluster_faults.primary_killed],
    ids=lambda fault: fault.__name__,
)
def test_nothing_is_lost_that_the_guarantees_do_not_name(
    run: CheckRun, cluster: PrivateCluster, fault: Fault
) -> None:
    _holds(run, cluster, fault)


@pytest.mark.soak
@pytest.mark.parametrize(
    "fault",
    [cluster_faults.handover, cluster_faults.slots_move, cluster_faults.primary_killed],
    ids=lambda fault: fault.__name__,
)
def test_nothing_is_lost_in_many_rounds(
    run: CheckRun, cluster: PrivateCluster, fault: Fault
) -> None:
    for _ in range(20):
        _holds(run, cluster, fault)
