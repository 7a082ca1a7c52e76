"""Scans of a cluster whose nodes are scripts: what is scanned again, and when a scan is complete."""

from collections.abc import Callable
from typing import Any

import pytest

from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster.keys import key_slot
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.scan import visit_primaries
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.errors import StoreUnavailable

from .test_cluster_topology import FakePool

Work = Callable[["ScriptedNode", bytes], Any]
KEY = b"key"


class ScriptedNode(ClusterNode):
    """A node whose replies are of a function."""

    def __init__(self, host: str, port: int, work: Work) -> None:
        super().__init__(FakePool(), CircuitBreaker(f"{host}:{port}"), host, port)
        self._work = work

    def execute(self, *command: Any, **_options: Any) -> Any:
        return self._work(self, b" ".join(command))


def topology_of(work: Work) -> Topology:
    return Topology([("a", 1)], lambda host, port: ScriptedNode(host, port, work), "the cluster")


def line(node: str, own: str, slots: str) -> str:
    flags = "myself,master" if node == own else "master"
    port = ord(node) - ord("a") + 1
    return f"id-{node} 10.0.0.{port}:{port}@1{port},{node} {flags} - 0 0 1 connected {slots}"


def test_a_slot_on_its_way_to_a_node_that_is_known_by_name_is_scanned_once() -> None:
    """CLUSTER NODES has the address first; CLUSTER SLOTS has what the cluster prefers, here names."""
    visited: list[str] = []

    def work(node: ScriptedNode, command: bytes) -> Any:
        if command == b"CLUSTER SLOTS":
            return [[0, 8000, [b"a", 1, b"id-a"]], [8001, 16383, [b"b", 2, b"id-b"]]]
        return "\n".join(
            [
                line("a", node.host, "0-8000 [5->-id-b]" if node.host == "a" else "0-8000"),
                line("b", node.host, "8001-16383 [5-<-id-a]" if node.host == "b" else "8001-16383"),
            ]
        ).encode()

    def visit(node: ClusterNode) -> list[list[bytes]]:
        visited.append(node.host)
        return [[KEY]]

    assert list(visit_primaries(topology_of(work), visit)) == [[KEY], [KEY]]
    assert visited == ["a", "b"]


@pytest.mark.parametrize(
    "target", ["", "id-b :0@0 master,fail,noaddr - 0 0 1 disconnected\n"], ids=["unknown", "lost"]
)
def test_a_slot_on_its_way_to_a_node_without_an_address_is_scanned_once(target: str) -> None:
    """No client can be redirected there, so no key of the slot is there."""
    visited: list[str] = []

    def work(node: ScriptedNode, command: bytes) -> Any:
        if command == b"CLUSTER SLOTS":
            return [[0, 16383, [b"a", 1, b"id-a"]]]
        return f"{line('a', node.host, '0-16383 [5->-id-b]')}\n{target}".encode()

    def visit(node: ClusterNode) -> list[list[bytes]]:
        visited.append(node.host)
        return [[KEY]]

    assert list(visit_primaries(topology_of(work), visit)) == [[KEY]]
    assert visited == ["a"]


@pytest.mark.parametrize("reply", [b"OK", b"", None, b"a 1.2.3.4:1@2 master - 0 0 1 connected 0-5"])
def test_a_node_that_does_not_say_what_it_has_fails_the_scan(reply: object) -> None:
    def work(_node: ScriptedNode, command: bytes) -> Any:
        return [[0, 16383, [b"a", 1, b"id-a"]]] if command == b"CLUSTER SLOTS" else reply

    with pytest.raises(StoreUnavailable, match="the reply to CLUSTER NODES has"):
        list(visit_primaries(topology_of(work), lambda _node: []))


@pytest.mark.parametrize("fails_at", ["CLUSTER NODES", "SCAN"])
def test_the_slots_of_a_node_that_failed_are_scanned_at_its_successor(fails_at: str) -> None:
    visited: list[str] = []
    dead = False

    def fail(node: ClusterNode) -> None:
        nonlocal dead
        dead = True
        raise StoreUnavailable(f"{node.host} is down")

    def work(node: ScriptedNode, command: bytes) -> Any:
        if command == b"CLUSTER SLOTS":
            first = [b"c", 3, b"id-c"] if dead else [b"a", 1, b"id-a"]
            return [[0, 8000, first], [8001, 16383, [b"b", 2, b"id-b"]]]
        if node.host == "a" and (dead or fails_at == "CLUSTER NODES"):
            fail(node)
        own = "8001-16383" if node.host == "b" else "0-8000"
        return line(node.host, node.host, own).encode()

    def visit(node: ClusterNode) -> list[list[bytes]]:
        if node.host == "a":
            fail(node)
        visited.append(node.host)
        return [[b"of %s" % node.host.encode(), KEY]]

    topology = topology_of(work)
    topology.load()
    topology._refreshed_at_s = 0.0  # noqa: SLF001 (long ago)
    found = list(visit_primaries(topology, visit))
    assert visited == ["b", "c"]
    at_first = [key for key in (b"of c", KEY) if key_slot(key) <= 8000]
    assert found == [[b"of b", KEY], at_first]


def test_a_node_that_fails_and_has_no_successor_is_the_error_of_the_scan() -> None:
    def work(_node: ScriptedNode, command: bytes) -> Any:
        if command == b"CLUSTER SLOTS":
            return [[0, 16383, [b"a", 1, b"id-a"]]]
        raise StoreUnavailable("a is down")

    with pytest.raises(StoreUnavailable, match="a is down"):
        list(visit_primaries(topology_of(work), lambda _node: []))
