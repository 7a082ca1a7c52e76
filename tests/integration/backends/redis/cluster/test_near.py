"""NearCache on a cluster: its copy follows all nodes, and is not served while they change."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.backends import NearCache, RedisCache
from cacheapp.backends.near.cluster_store import NearClusterStore
from cacheapp.backends.near.records import Fill
from cacheapp.backends.near.tracking import TrackingConnection
from cacheapp.backends.redis.cluster.keys import SLOTS
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.near.parts import confirmed, other, reads_of_redis, until_copied
from tests.integration.backends.redis.cluster.parts import another, slot_of, topology_of

NAMES = [f"key{number}" for number in range(30)]
Near = Callable[..., NearCache]


@pytest.fixture
def near(own_cluster: PrivateCluster, tmp_path: Path) -> Iterator[Near]:
    """Return a NearCache under a prefix of the test's own, with a bound that no busy machine comes to."""

    def build(location: str | None = None, **options: object) -> NearCache:
        made = {"copy": str(tmp_path / "copy"), "size_limit": 8 * 2**20, "max_staleness": 30.0}
        params = {"KEY_PREFIX": tmp_path.name, "OPTIONS": {**PATIENT, **made, **options}}
        built.append(NearCache(location or own_cluster.url, params))
        return built[-1]

    built: list[NearCache] = []
    yield build
    for each in built:
        each._store.close()  # noqa: SLF001 (its listener would follow the cluster to its end)


@pytest.fixture
def cache(near: Near) -> NearCache:
    made = near()
    confirmed(made)
    return made


@pytest.fixture
def machine(cache: NearCache) -> RedisCache:
    return other(cache)


def test_the_copy_follows_the_writes_at_all_nodes(cache: NearCache, machine: RedisCache) -> None:
    machine.set_many(dict.fromkeys(NAMES, "old"))
    until_copied(cache, lambda: cache.get_many([*NAMES, "none"]))
    assert cache.get_many([*NAMES, "none"]) == dict.fromkeys(NAMES, "old")
    until_copied(cache, lambda: [cache.get(name) for name in NAMES])
    for name in NAMES:
        machine.set(name, "new")
        until(lambda name=name: cache.get(name) == "new", "the write of another machine")  # type: ignore[misc]
    until_copied(cache, lambda: cache.get("key0"))
    assert cache.incr_version("key0") == 2
    assert (cache.get("key0"), cache.get("key0", version=2)) == (None, "new")
    cache.set_many(dict.fromkeys(NAMES, "own"))
    assert {cache.get(name) for name in NAMES} == {"own"}
    until_copied(cache, lambda: cache.get("key1"))
    cache.clear()
    assert cache.get("key1") is None


def test_a_slot_that_moves_begins_a_new_epoch(near: Near, own_cluster: PrivateCluster) -> None:
    cache = near(max_staleness=1.0)
    machine = other(cache)
    machine.set("key", "old")
    until_copied(cache, lambda: cache.get("key"))
    epoch, slot = cache.stats()["copy_epoch"], slot_of(cache, "key")
    target = another(own_cluster, own_cluster.owner(slot))
    own_cluster.begin_move(slot, target)
    while own_cluster.move_keys(slot, target):
        pass
    machine.set("key", "written at the target")
    until(lambda: cache.get("key") == "written at the target", "a write while the slot moves")
    own_cluster.end_move(slot, target)
    until(lambda: cache.get("key") and cache.stats()["copy_epoch"] > epoch, "another epoch")
    machine.set("key", "new")
    until(lambda: cache.get("key") == "new", "a write at the new owner")
    until_copied(cache, lambda: cache.get("key"))


def test_a_primary_that_hands_over_begins_a_new_epoch(
    near: Near, own_cluster: PrivateCluster
) -> None:
    cache = near(max_staleness=1.0)
    machine = other(cache)
    machine.set("key", "old")
    until_copied(cache, lambda: cache.get("key"))
    epoch = cache.stats()["copy_epoch"]
    own_cluster.fail_over(own_cluster.owner(slot_of(cache, "key")))
    machine.set("key", "new")
    until(lambda: cache.get("key") == "new", "the write to the new primary")
    until(lambda: cache.get("key") and cache.stats()["copy_epoch"] > epoch, "another epoch")
    until_copied(cache, lambda: cache.get("key"))


def test_a_replica_that_does_not_reply_may_be_a_primary(
    near: Near, own_cluster: PrivateCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # A read that another node delays for longer than the time-out is a miss.
    cache = near(max_staleness=1.0, SOCKET_TIMEOUT=1.0, on_error="miss")
    confirmed(cache)
    stopped = own_cluster.replica_of(own_cluster.primaries()[0])
    stopped.send(signal.SIGSTOP)
    try:
        with caplog.at_level(logging.INFO):
            name = f"127.0.0.1:{stopped.port})"
            until(lambda: cache.get("key") or name in caplog.text, "the line that names it")
        until(
            lambda: reads_of_redis(cache, lambda: [cache.get("key") for _ in range(3)]) == 3,
            "the copy to be served no longer",
        )
    finally:
        stopped.send(signal.SIGCONT)
    until(stopped.follows, "the replica to follow", 60)
    confirmed(cache)


def test_a_primary_that_was_replaced_and_does_not_know_it_confirms_nothing(
    near: Near, own_cluster: PrivateCluster
) -> None:
    """It is cut off from the other nodes, but not from clients, and would be a primary for a minute."""
    help_text = b" ".join(own_cluster.nodes[0].command("DEBUG", "HELP"))
    if b"-2 to drop all packets" not in help_text:
        pytest.skip("this server cannot be cut off from the other nodes alone: Valkey 9 can")
    cache = near(max_staleness=1.0)
    confirmed(cache)
    deaf = own_cluster.owner(slot_of(cache, "key"))
    replica = own_cluster.replica_of(deaf)
    deaf.command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)
    try:
        replica.cluster("FAILOVER", "TAKEOVER")
        until(
            lambda: reads_of_redis(cache, lambda: [cache.get("key") for _ in range(3)]) == 3,
            "the copy to be served no longer",
        )
        assert deaf.is_primary()
        assert replica.is_primary()
    finally:
        deaf.command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
    until(deaf.follows, "the old primary to follow", 60)
    confirmed(cache)


def test_what_another_node_replied_is_not_copied(
    cache: NearCache, machine: RedisCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a primary that was replaced, and does not know it yet."""
    machine.set("key", "value")
    owner = topology_of(cache).owner(slot_of(cache, "key"))
    with monkeypatch.context() as stale:
        stale.setattr(topology_of(cache), "refresh", lambda **_options: None)
        stale.setattr(owner, "id", b"x" * 40)
        for read in (lambda: cache.get("key"), lambda: cache.get_many(["key"])):
            assert reads_of_redis(cache, lambda read=read: [read() for _ in range(3)]) == 3  # type: ignore[misc]
    until_copied(cache, lambda: cache.get("key"))


def test_a_copy_whose_owners_are_not_known_yet_stores_nothing(cache: NearCache) -> None:
    """As one whose directory was replaced while a fill began."""
    fill = Fill(cache._copy.environment.current, 0, {})  # type: ignore[arg-type]  # noqa: SLF001
    cache._store.__dict__.pop("_owners", None)  # noqa: SLF001
    assert not cache._store.is_of_owner(fill, cache.make_key("key"), b"x" * 40)  # noqa: SLF001


def test_the_owners_of_an_epoch_are_those_of_its_own_files(cache: NearCache) -> None:
    """Files that replace others begin with the same epochs; this process may have missed the ones between."""
    store, key = cache._store, cache.make_key("key")  # noqa: SLF001
    assert isinstance(store, NearClusterStore)
    former, former_id = object(), b"x" * 40
    env, epoch, _ = store.copy.owners()
    owner = topology_of(cache).owner(slot_of(cache, "key")).id
    assert env is not None
    fill = Fill(env, epoch, {})
    store._owners = (former, epoch, [former_id] * SLOTS)  # type: ignore[assignment]  # noqa: SLF001
    assert not store.is_of_owner(fill, key, former_id)
    assert store.is_of_owner(fill, key, owner)
    assert not store.is_of_owner(fill._replace(epoch=epoch - 1), key, owner)


def test_the_claim_is_renewed_before_each_node_and_each_reply(
    cache: NearCache, own_cluster: PrivateCluster
) -> None:
    connections: list[TrackingConnection] = []
    renewed_at: list[int] = []
    try:
        cache._store._build_tracked().connect(  # noqa: SLF001
            connections, [], lambda: renewed_at.append(len(connections))
        )
    finally:
        for connection in connections:
            connection.close()
    count = len(own_cluster.nodes)
    assert renewed_at[-2 * count :] == [*range(count), *[count] * count]
    assert renewed_at[: -2 * count], "none before a node is asked for the others"


def test_a_user_with_the_documented_rights_is_enough(
    near: Near, own_cluster: PrivateCluster
) -> None:
    rights = "~* &cacheapp:lease:* +@read +@write +@scripting +@connection +@pubsub +asking +time"
    words = f"on >s3cr3t {rights} +ping +cluster|slots +cluster|nodes"
    for node in own_cluster.nodes:
        node.command("ACL", "SETUSER", "copying", *words.split())
    cache = near(f"redis+cluster://copying:s3cr3t@{own_cluster.addresses}")
    for node in own_cluster.nodes:  # the replicas last
        refusal = cache.tracking_refusal()
        assert "cluster|info" in refusal
        assert "the cluster node 127.0.0.1:" in refusal
        node.command("ACL", "SETUSER", "copying", "+cluster|info")
    assert str(own_cluster.nodes[-1].port) in refusal
    confirmed(cache)
    assert cache.tracking_refusal() == ""
    confirmed(cache)
    own_cluster.nodes[-1].command("ACL", "SETUSER", "copying", "resetpass", ">another")
    assert str(own_cluster.nodes[-1].port) in cache.tracking_refusal()
