"""A lock is released wherever the exception of a signal handler interrupts a loop under it."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cacheapp import clock
from cacheapp.backends.core import operations
from cacheapp.backends.core.poller import Poller
from cacheapp.backends.core.renewer import Renewer
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.backends.redis.connection_pool import BoundedConnectionPool, _Waiter
from cacheapp.downloads.engine.progress import RunProgress
from cacheapp.downloads.plan import FileReport, Item, JobProgress
from cacheapp.downloads.states import FileState
from tests.integration.backends.interrupt_everywhere import interrupt_at

# ruff: noqa: SLF001 (the locks)

Case = tuple[Callable[[], object], Any]
"""An operation with a loop under a lock, and the lock."""


@pytest.fixture
def idle_renewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no threads: the tests do what those do."""
    monkeypatch.setattr("cacheapp.backends.core.helper_thread.start", lambda *_arguments: True)


def _expired_waiters() -> Case:
    pool = BoundedConnectionPool(pool_timeout=1, max_connections=4)
    pool._available_connections.append(type("Idle", (), {})())
    pool._waiting.extend(_Waiter(clock.monotonic_s() - 1) for _ in range(3))
    return lambda: pool._take(None), pool._lock


def _forgotten_nodes() -> Case:
    topology = Topology(
        [],
        lambda host, port: ClusterNode(
            BoundedConnectionPool(pool_timeout=1, max_connections=4),
            CircuitBreaker(host),
            host,
            port,
        ),
        "cluster",
    )
    for port in range(3):
        topology.node("host", port)
    return topology._forget_others, topology._nodes_lock


def _due_renewals() -> Case:
    renewer = Renewer()
    renewer._held = {number: (bool, 60, clock.monotonic_s() - 1) for number in range(3)}
    return renewer._due, renewer._lock


def _due_watches() -> Case:
    poller = Poller(lambda _seen: [])
    for key in "abc":
        poller.add(key, b"", lambda: None)
    for watch in poller._watches:
        watch.due_s = 0
    return poller._due, poller._lock


def _last_subscriber() -> Case:
    observation = operations._Observation()

    class Measured:
        def get(self) -> None: ...

        def set(self) -> None: ...

    observation.watch(Measured, dict.fromkeys(["get", "set"], lambda method: method))
    return observation.subscribe(lambda _operation: None), observation._lock.lock


def _recorded_reports() -> Case:
    progress = RunProgress(JobProgress())
    reports = [
        FileReport(Item(number, number, "http://a/", "a"), FileState.RUNNING) for number in range(3)
    ]
    for report in reports:
        progress._changed[report.item.position] = report
    return lambda: progress.mark_recorded(reports), progress._lock


CASES = [
    _expired_waiters,
    _forgotten_nodes,
    _due_renewals,
    _due_watches,
    _last_subscriber,
    _recorded_reports,
]


@pytest.fixture
def is_free() -> Iterator[Callable[[Any], bool]]:
    """Return what tells in another thread whether a lock is free: most are reentrant."""

    def look(lock: Any) -> bool:
        if found := lock.acquire(blocking=False):
            lock.release()
        return bool(found)

    with ThreadPoolExecutor(1) as thread:
        yield lambda lock: thread.submit(look, lock).result()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_a_lock_is_free_after_an_interruption_of_a_loop_under_it(
    case: Callable[[], Case], is_free: Callable[[Any], bool], idle_renewer: None
) -> None:
    for number in itertools.count(1):
        operation, lock = case()
        was_interrupted = interrupt_at(number, operation)
        assert is_free(lock), f"after an interruption before bytecode {number}"
        if not was_interrupted:
            break
    assert number > 50
