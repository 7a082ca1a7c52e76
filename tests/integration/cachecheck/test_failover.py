"""A cluster or a primary that changes under four processes of load: nothing is lost but what is named."""

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from cacheapp import clock
from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.private import Stores, private_stores
from cacheapp.cachecheck.run import CheckRun, try_store
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads import cluster_faults, registers
from cacheapp.cachecheck.workloads.cluster_faults import with_losses
from cacheapp.consistency.history import Outcome
from cacheapp.processes.ports import free_port
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import SentinelServer, raw

REDIS = "cacheapp.backends.RedisCache"
Fault = Callable[[CheckRun, PrivateCluster], list[PropertyFinding]]


@contextlib.contextmanager
def _clients(overrides: dict[str, Any]) -> Iterator[CheckRun]:
    """Start four processes with two threads each, which use a RedisCache."""
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        setup = Setup("default", overrides, threads=2, directory=Path(name))
        with Clients(setup, 4) as clients:
            yield CheckRun(clients, Journals(Path(name)), "", seconds=1.0, private=True)


def _entry(location: str, **options: Any) -> dict[str, Any]:
    options = {"SOCKET_TIMEOUT": 30, **options}
    return {"BACKEND": REDIS, "LOCATION": location, "OPTIONS": options}


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    """A cluster of its own, as `cachecheck --private` starts it."""
    caches = {"default": _entry("redis+cluster://cache.internal:6379")}
    with override_settings(CACHES=caches), private_stores(["default"]) as stores:
        yield stores


@pytest.fixture
def cluster(stores: Stores) -> PrivateCluster:
    found = stores.servers["default"]
    assert isinstance(found, PrivateCluster)
    return found


@pytest.fixture(scope="module")
def run(stores: Stores) -> Iterator[CheckRun]:
    with _clients(stores.overrides) as run:
        yield run


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


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_failover_by_three_sentinels_loses_only_what_was_not_replicated(
    how: signal.Signals,
) -> None:
    first, second = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        primary, replica = (
            stack.enter_context(RedisServer(["--port", str(port), "--bind", "127.0.0.1"])).start()
            for port in (first, second)
        )
        with raw(replica) as client:
            client.replicaof("127.0.0.1", str(first))
            until(lambda: client.info()["master_link_status"] == "up", "the replica to follow", 60)
        sentinels = [stack.enter_context(SentinelServer(first, 2)).start() for _ in range(3)]
        for sentinel in sentinels:
            until(partial(sentinel.knows_others, 2), "the sentinels to know each other", 60)
            sentinel.suspect_after(1000)
        addresses = [("127.0.0.1", sentinel.port) for sentinel in sentinels]
        options = {"SENTINELS": addresses, "SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
        entry = _entry("redis://cached/0", **options)
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="check-"))
        overrides = {"CACHES": {"default": entry}, "CACHEAPP": {"STATE_DIR": Path(state) / "state"}}
        run = stack.enter_context(_clients(overrides))
        clients = run.crew
        assert isinstance(clients, Clients)
        run.token = f"check-{uuid4().hex[:8]}"
        keys = run.keys("sentinel", registers.KEYS)
        chosen = clients.order(registers.simple_calls, keys, 1.0)
        journal = chosen[0].number
        until(lambda: run.journals.lines(journal) >= 40, "a client to make calls", 60)
        failed_ns = clock.monotonic_ns()
        primary.send(how)
        clients.results(chosen, 120)
        for sentinel in sentinels:
            until(lambda s=sentinel: s.primary_port() == second, "the failover", 120)  # type: ignore[misc]
        ended_ns = clock.monotonic_ns()
        primary.send(signal.SIGCONT)  # of no effect if it was killed
        until(lambda: not any(clients.run(try_store, f"{run.token}-x", within_s=60)), "a write", 60)
        clients.run(registers.simple_calls, keys, 1.0, within_s=120)
        calls = [one for one in run.history() if one.outcome is not Outcome.FAIL]
        explained = with_losses(calls, keys, (failed_ns, ended_ns))
        found = registers.one_order("failover", explained, run)
        assert found.verdict is PropertyVerdict.HOLDS, found
