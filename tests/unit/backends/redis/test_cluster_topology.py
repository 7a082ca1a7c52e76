"""Which node is asked for the slots, how often, and what becomes of its reply."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cacheapp import clock
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster.executor import ClusterExecutor
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.topology import REFRESH_EVERY_S, Topology
from cacheapp.backends.redis.executor import FailureKind
from cacheapp.errors import StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

Reply = list[list[Any]]


class FakeNode(ClusterNode):
    """A node that replies to CLUSTER SLOTS, or is down."""

    def __init__(self, host: str, port: int, replies: dict[int, Reply]) -> None:
        super().__init__(FakePool(), CircuitBreaker(f"{host}:{port}"), host, port)
        self._replies = replies
        self.asked = 0

    def execute(self, *command: Any, **_options: Any) -> Any:
        assert command == (b"CLUSTER", b"SLOTS")
        self.asked += 1
        if self.port not in self._replies:
            raise StoreUnavailable(f"{self.port} is down")
        return self._replies[self.port]


class FakePool:
    """A pool without connections."""

    def disconnect(self, **_options: Any) -> None:
        pass


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which the test moves."""
    found = [100.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: found[0])
    return found


def topology_of(replies: dict[int, Reply], *seeds: int) -> tuple[Topology, Callable[[int], int]]:
    """Return the view of these nodes, and what counts how often a port was asked."""
    opened: list[FakeNode] = []

    def open_node(host: str, port: int) -> ClusterNode:
        opened.append(FakeNode(host, port, replies))
        return opened[-1]

    topology = Topology([("seed", port) for port in seeds], open_node, "the cluster")
    return topology, lambda port: sum(node.asked for node in opened if node.port == port)


def entry(port: int, host: bytes | None = b"host") -> list[Any]:
    return [host, port, b"id"]


def test_a_node_that_does_not_know_its_own_host_has_that_of_the_node_that_names_it() -> None:
    topology, _ = topology_of(
        {1: [[0, 99, entry(1, None)], [100, 16383, entry(2, b"?"), entry(3, b"")]]}, 1
    )
    assert (topology.owner(0).host, topology.owner(0).port) == ("seed", 1)
    assert (topology.owner(16383).host, topology.owner(16383).port) == ("seed", 2)


def test_the_next_seed_is_asked_if_one_is_down_or_knows_nothing() -> None:
    topology, asked = topology_of({2: [], 3: [[0, 16383, entry(3)]]}, 1, 2, 3)
    assert topology.owner(7).port == 3
    assert (asked(1), asked(2), asked(3)) == (1, 1, 1)
    with pytest.raises(StoreUnavailable, match=r"no node of the cluster says.*2 is down"):
        topology_of({}, 1, 2)[0].owner(7)


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        7,
        [[0]],
        [[0, 5]],
        [[0, 99_999, entry(1)]],
        [[5, 0, entry(1)]],
        [[0, 16383, [b"host"]]],
        [[0, 16383, [b"host", b"port", b"id"]]],
        [[0, 16383, [7, 1, b"id"]]],
        [[0, 16383, b"host"]],
    ],
)
def test_a_node_that_does_not_say_who_has_which_slots_is_passed_over(reply: Any) -> None:
    topology, _ = topology_of({1: reply, 2: [[0, 16383, entry(2)]]}, 1, 2)
    assert topology.owner(7).port == 2
    topology, _ = topology_of({1: reply}, 1)
    with pytest.raises(StoreUnavailable, match="the reply to CLUSTER SLOTS has an unknown form"):
        topology.owner(7)


def test_one_who_asks_the_cluster_anew_is_called_before_each_node() -> None:
    topology, _ = topology_of({3: [[0, 16383, entry(3)]]}, 1, 2, 3)
    calls: list[int] = []
    topology.refresh(before_each=lambda: calls.append(len(topology.known_nodes())))
    assert calls == [1, 2, 3]


def test_the_cluster_is_not_asked_more_often_than_promised(now: list[float]) -> None:
    replies: dict[int, Reply] = {1: [[0, 16383, entry(1)]], 2: [[0, 16383, entry(1)]]}
    topology, asked = topology_of(replies, 2)
    owner = topology.owner(7)
    for _ in range(100):
        assert topology.another_owner(7, owner) is None
    assert asked(1) == 0
    now[0] += REFRESH_EVERY_S
    replies[2] = [[0, 16383, entry(3)]]
    other = topology.another_owner(7, owner)  # asks the failed node last
    assert other is not None
    assert other.port == 3
    assert (asked(1), asked(2)) == (0, 2)


def test_a_slot_without_an_owner_is_unavailable_and_the_others_are_not(now: list[float]) -> None:
    replies: dict[int, Reply] = {1: [[0, 99, entry(1)], [101, 16383, entry(1)]]}
    topology, _ = topology_of(replies, 1)
    assert topology.owner(99).port == 1
    with pytest.raises(StoreUnavailable, match="slot 100 has no owner in the cluster"):
        topology.owner(100)
    now[0] += REFRESH_EVERY_S
    replies[1] = [[0, 16383, entry(1)]]
    assert topology.owner(100).port == 1


def test_a_node_without_slots_counts_as_down_no_longer(now: list[float]) -> None:
    changes: list[bool] = []
    replies: dict[int, Reply] = {1: [[0, 16383, entry(1)]], 2: [[0, 16383, entry(2)]]}
    topology, _ = topology_of(replies, 1, 2)
    node = topology.owner(0)
    node.breaker = CircuitBreaker("node", lambda *, opened: changes.append(opened))
    for _ in range(3):
        node.breaker.record_failure("it is down")
    del replies[1]
    now[0] += REFRESH_EVERY_S
    found = topology.another_owner(0, node)
    assert found is not None
    assert found.port == 2
    assert changes == [True, False]
    assert topology.known_nodes() == [found]


def test_the_successor_of_a_node_that_is_known_to_be_down_is_found_without_waiting_for_it(
    now: list[float],
) -> None:
    replies: dict[int, Reply] = {port: [[0, 16383, entry(1)]] for port in (1, 2)}
    topology, asked = topology_of(replies, 2)
    node = topology.owner(7)
    for _ in range(3):
        node.breaker.record_failure("it does not reply")
    assert topology.owner(7) is node
    replies[2] = [[0, 16383, entry(2)]]
    now[0] += REFRESH_EVERY_S
    assert topology.owner(7).port == 2
    assert asked(1) == 0


def test_many_keys_ask_an_unreachable_cluster_once() -> None:
    topology, asked = topology_of({}, 1, 2)
    executor = ClusterExecutor(topology, "the cluster", 1.0)
    keys = [b"key%d" % number for number in range(1000)]
    with pytest.raises(StoreUnavailable, match="no node of the cluster says"):
        list(executor.execute_by_slot(keys, lambda own: (b"MGET", *own), FailureKind.READ))
    assert (asked(1), asked(2)) == (1, 1)


def test_threads_that_wait_for_the_first_view_fail_with_the_one_that_asks() -> None:
    failures: list[StoreUnavailable] = []
    waiting = threading.Event()

    class WaitedFor:
        """A lock that says when a second thread is about to wait for it."""

        def __init__(self) -> None:
            self._lock = reentrant_lock()

        def __enter__(self) -> None:
            if not self._lock.acquire(blocking=False):
                waiting.set()
                self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    def load() -> None:
        with pytest.raises(StoreUnavailable) as caught:
            topology.load()
        failures.append(caught.value)

    class DownNode(FakeNode):
        def execute(self, *command: Any, **options: Any) -> Any:
            if not self.asked:
                other.start()
                waiting.wait(30)
            return super().execute(*command, **options)

    node = DownNode("host", 1, {})
    topology = Topology([("host", 1)], lambda _host, _port: node, "the cluster")
    topology._lock = WaitedFor()  # type: ignore[assignment]  # noqa: SLF001
    other = threading.Thread(target=load)
    load()
    other.join(30)
    assert [str(each) for each in failures] == [str(failures[0])] * 2
    assert node.asked == 1


def test_a_node_is_found_while_another_thread_waits_for_the_reply_of_the_cluster() -> None:
    found: list[ClusterNode] = []

    class AskingNode(FakeNode):
        def execute(self, *command: Any, **options: Any) -> Any:
            other = threading.Thread(target=lambda: found.append(topology.node("host", 2)))
            other.start()
            other.join(30)
            return super().execute(*command, **options)

    def open_node(host: str, port: int) -> ClusterNode:
        return AskingNode(host, port, {1: [[0, 16383, entry(1)]]})

    topology = Topology([("host", 1)], open_node, "the cluster")
    assert topology.owner(7).port == 1
    assert [node.port for node in found] == [2]
