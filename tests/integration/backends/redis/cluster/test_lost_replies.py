"""What is said of a command whose reply was lost, if its slot moves before it is repeated."""

import pytest

from cacheapp.errors import OutcomeUnknown
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.cluster.conftest import Build
from tests.integration.backends.redis.cluster.parts import (
    another,
    has_all_of,
    slot_of,
    topology_of,
)
from tests.integration.backends.redis.parts import Wire


def test_a_lease_that_is_repeated_after_its_slot_moved_to_a_dead_node_may_have_been_taken(
    build: Build, own_cluster: PrivateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build()
    store, key, slot = cache._store, cache.make_key("key"), slot_of(cache, "key")  # noqa: SLF001
    lease = store.new_lease()
    source = own_cluster.owner(slot)
    target = another(own_cluster, source)
    replica = own_cluster.replica_of(target)

    def move_and_kill() -> None:
        own_cluster.move(slot, target)
        until(lambda: has_all_of(replica, target), "the replica to have the lease")
        target.kill()

    assert store.get(key) is None  # it follows what moved before
    assert topology_of(cache).owner(slot).port == source.port
    with Wire(source) as wire, monkeypatch.context() as wired:
        pool = store._build_pool("127.0.0.1", wire.port)  # type: ignore[attr-defined]  # noqa: SLF001
        wired.setattr(topology_of(cache).owner(slot), "pool", pool)
        assert store.lease(key, lease, 100) is None  # the node caches the script
        assert store.discard(key, lease)
        wire.before_cut = move_and_kill
        wire.lose()
        with pytest.raises(OutcomeUnknown, match="may have been executed"):
            store.lease(key, lease, 100)
        assert wire.lost == 1
        pool.disconnect()
    own_cluster.promote(replica)
    own_cluster.revive(target)
    assert replica.command("GET", key) == lease
    own_cluster.move(slot, source)
