"""Which failures make a command go to another node."""

import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster.executor import ClusterExecutor
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.backends.redis.executor import CommandExecutor
from cacheapp.backends.redis.locks import RedisLocks
from cacheapp.errors import StoreUnavailable

from .test_cluster_topology import FakePool


@pytest.fixture
def interruption() -> Iterator[StoreUnavailable]:
    """What the handler of SIGUSR1 raises: the error of another cache that it uses."""
    error = StoreUnavailable("another cache is down")

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    yield error
    signal.signal(signal.SIGUSR1, before)


def test_an_error_that_a_signal_handler_raised_does_not_send_a_command_again(
    interruption: StoreUnavailable, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[int] = []

    class InterruptedNode(ClusterNode):
        def execute(self, *command: Any, **_options: Any) -> Any:
            if command[0] == b"CLUSTER":
                return [[0, 16383, [b"host", 2 if executed else 1, b"id"]]]
            executed.append(self.port)
            signal.raise_signal(signal.SIGUSR1)
            return None

    def open_node(host: str, port: int) -> ClusterNode:
        return InterruptedNode(FakePool(), CircuitBreaker("node"), host, port)

    monkeypatch.setattr("cacheapp.backends.redis.cluster.topology.REFRESH_EVERY_S", 0.0)
    topology = Topology([("host", 1)], open_node, "the cluster")
    executor = ClusterExecutor(topology, "the cluster", patience_s=1.0)
    with pytest.raises(StoreUnavailable) as caught:
        executor.execute(b"INCR", b"count")
    assert caught.value is interruption
    assert executed == [1]


@pytest.mark.parametrize("method", ["load", "refresh"])
def test_an_error_that_a_signal_handler_raised_is_no_failure_of_the_node_that_is_asked(
    interruption: StoreUnavailable, method: str
) -> None:
    class InterruptedNode(ClusterNode):
        def execute(self, *_command: Any, **_options: Any) -> Any:
            signal.raise_signal(signal.SIGUSR1)

    def open_node(host: str, port: int) -> ClusterNode:
        return InterruptedNode(FakePool(), CircuitBreaker("node"), host, port)

    topology = Topology([("host", 1), ("host", 2)], open_node, "the cluster")
    with pytest.raises(StoreUnavailable) as caught:
        getattr(topology, method)()
    assert caught.value is interruption
    assert len(topology.known_nodes()) == 1


def test_a_lock_that_a_signal_handler_interrupts_is_cancelled(
    interruption: StoreUnavailable,
) -> None:
    """The error says that nothing was done, but it is about another cache."""
    ran: list[bytes] = []

    class OneServer(CommandExecutor):
        def execute(self, *command: Any, **_options: Any) -> Any:
            ran.append(command[1])
            return b"1"

    def note(_token: int) -> None:
        signal.raise_signal(signal.SIGUSR1)

    locks = RedisLocks(OneServer(FakePool(), CircuitBreaker("Redis"), "Redis"))
    with pytest.raises(StoreUnavailable) as caught:
        locks.acquire("lock", 10, note)
    assert caught.value is interruption
    assert ran == [scripts.ACQUIRE_LOCK.sha, scripts.CANCEL_LOCK.sha]
