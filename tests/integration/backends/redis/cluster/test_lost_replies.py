"""What is said of a command whose reply was lost, if its slot moves before it is repeated."""

import contextlib
from collections.abc import Iterator

import pytest

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.errors import OutcomeUnknown
from cacheapp.processes.redis_cluster import ClusterServer, PrivateCluster
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.cluster.conftest import Build
from tests.integration.backends.redis.cluster.parts import another, slot_of, topology_of
from tests.integration.backends.redis.parts import Wire


def uses(topology: Topology, port: int) -> bool:
    """Ask the cluster; return True if it names this port for a primary."""
    topology.refresh()
    return any(node.port == port for node in topology.primaries())


@contextlib.contextmanager
def wired(cache: RedisCache, node: ClusterServer) -> Iterator[Wire]:
    """Have the node announce the port of a proxy, and the cache use it."""
    with Wire(node) as wire:
        node.command("CONFIG", "SET", "cluster-announce-port", wire.port)
        try:
            until(lambda: uses(topology_of(cache), wire.port), "the port of the proxy", 60)
            yield wire
        finally:
            node.command("CONFIG", "SET", "cluster-announce-port", 0)
            until(lambda: uses(topology_of(cache), node.port), "the port of the node", 60)


def has_all_of(replica: ClusterServer, primary: ClusterServer) -> bool:
    """Return True if the replica has received all that the primary has sent."""
    return bool(replica.command("ROLE")[4] >= primary.command("ROLE")[1])


def hand_over(
    cluster: PrivateCluster, slot: int, source: ClusterServer, target: ClusterServer
) -> None:
    """Move a slot from a node that announces another port than its own."""
    target.cluster("SETSLOT", slot, "IMPORTING", source.id)
    source.cluster("SETSLOT", slot, "MIGRATING", target.id)
    to = ("127.0.0.1", target.port, "", 0, 60_000, "AUTH", target.password)
    source.command("MIGRATE", *to, "KEYS", *source.cluster("GETKEYSINSLOT", slot, 100))
    cluster.end_move(slot, target)


def test_a_lease_that_is_repeated_after_its_slot_moved_to_a_dead_node_may_have_been_taken(
    build: Build, own_cluster: PrivateCluster
) -> None:
    cache = build()
    store, key, slot = cache._store, cache.make_key("key"), slot_of(cache, "key")  # noqa: SLF001
    lease = store.new_lease()
    source = own_cluster.owner(slot)
    target = another(own_cluster, source)
    replica = own_cluster.replica_of(target)

    def move_and_kill() -> None:
        hand_over(own_cluster, slot, source, target)
        until(lambda: has_all_of(replica, target), "the replica to have the lease")
        target.kill()

    with wired(cache, source) as wire:
        assert store.lease(key, lease, 100) is None  # the node caches the script
        assert store.discard(key, lease)
        wire.before_cut = move_and_kill
        wire.lose()
        with pytest.raises(OutcomeUnknown, match="may have been executed"):
            store.lease(key, lease, 100)
        assert wire.lost == 1
        own_cluster.promote(replica)
        own_cluster.revive(target)
        assert replica.command("GET", key) == lease
        own_cluster.move(slot, source)
