"""What a cache does while a cluster changes: slots move, primaries hand over, are stopped or die."""

import signal
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cacheapp.backends import RedisCache
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.redis.cluster.conftest import Build
from tests.integration.backends.redis.cluster.parts import (
    another,
    has_all_of,
    is_woken,
    listened_to,
    slot_of,
    topology_of,
    works,
)

# A hash tag within the keys brings these into one slot.
TOGETHER = [f"{{t}}{number}" for number in range(6)]


def test_a_slot_that_has_moved_is_followed(cache: RedisCache, own_cluster: PrivateCluster) -> None:
    cache.set("count", 1)
    slot = slot_of(cache, "count")
    target = another(own_cluster, own_cluster.owner(slot))
    own_cluster.move(slot, target)
    assert cache.incr("count") == 2
    assert topology_of(cache).owner(slot).port == target.port
    assert cache.get_many(["count"]) == {"count": 2}


def test_a_batch_follows_a_slot_that_has_moved(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    data = {f"key{number}": number for number in range(50)}
    assert cache.set_many(data) == []
    slot = slot_of(cache, "key7")
    own_cluster.move(slot, another(own_cluster, own_cluster.owner(slot)))
    assert cache.get_many(data) == data
    slot = slot_of(cache, "key8")
    own_cluster.move(slot, another(own_cluster, own_cluster.owner(slot)))
    cache.delete_many(data)
    assert cache.get_many(data) == {}


def test_keys_of_a_moving_slot_are_found_on_both_nodes(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    cache.set_many(dict.fromkeys(TOGETHER[:4], "old"))
    slot = slot_of(cache, TOGETHER[0])
    target = another(own_cluster, own_cluster.owner(slot))
    own_cluster.begin_move(slot, target)
    try:
        assert own_cluster.move_keys(slot, target, most=2) == 2
        assert cache.get_many(TOGETHER) == dict.fromkeys(TOGETHER[:4], "old")
        assert cache.add(TOGETHER[4], "new")
        assert cache.set_many({TOGETHER[0]: "set", TOGETHER[5]: "set"}) == []
        assert cache.get(TOGETHER[5]) == "set"
        assert sorted(cache.keys("*")) == TOGETHER
        cache.delete_many([TOGETHER[1], TOGETHER[5]])
        assert cache.delete_pattern("{t}[23]") == 2
    finally:
        while own_cluster.move_keys(slot, target):
            pass
        own_cluster.end_move(slot, target)
    assert cache.get_many(TOGETHER) == {TOGETHER[0]: "set", TOGETHER[4]: "new"}


def test_what_needs_two_keys_of_a_moving_slot_waits_and_then_says_that_nothing_happened(
    build: Build, own_cluster: PrivateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, hasty = build(), build(SOCKET_TIMEOUT=58)
    cache.set("{t}key", "value")
    slot = slot_of(cache, "{t}key")
    target = another(own_cluster, own_cluster.owner(slot))
    with cache.lock("{t}lock", timeout=100) as lock:
        first = lock.token
    own_cluster.begin_move(slot, target)
    try:
        with monkeypatch.context() as patched:
            # No shorter time-out, which a node that is slow to reply would break.
            patched.setattr(hasty._store.executor, "_patience_s", 0.2)  # noqa: SLF001
            with pytest.raises(StoreUnavailable, match=r"is being moved.*nothing was changed"):
                hasty.incr_version("{t}key")
        assert cache.get("{t}key") == "value"
    finally:
        while own_cluster.move_keys(slot, target):
            pass
        own_cluster.end_move(slot, target)
    assert hasty.incr_version("{t}key") == 2
    with cache.lock("{t}lock", timeout=100) as lock:
        assert first is not None
        assert lock.token is not None
        assert lock.token > first


@pytest.mark.parametrize("half_before", [True, False], ids=["open before", "within the scan"])
def test_a_scan_misses_no_key_that_moves_meanwhile(
    cache: RedisCache, own_cluster: PrivateCluster, *, half_before: bool
) -> None:
    """To a node that was scanned already, from one that was not."""
    expected = {f"{{t}}{number}" for number in range(300)} | {f"k{number}" for number in range(300)}
    cache.set_many(dict.fromkeys(expected, 1))
    slot = slot_of(cache, "{t}0")
    scanned_first, *_, scanned_last = sorted(own_cluster.primaries(), key=lambda node: node.port)
    if own_cluster.owner(slot) is not scanned_last:
        own_cluster.move(slot, scanned_last)
    if half_before:
        own_cluster.begin_move(slot, scanned_first)
        assert own_cluster.move_keys(slot, scanned_first, most=100) == 100
    keys = cache.iter_keys("*", 10)
    seen = [next(keys)]
    if half_before:
        assert own_cluster.move_keys(slot, scanned_first, most=100) == 100
        seen += [next(keys) for _ in range(400)]
        while own_cluster.move_keys(slot, scanned_first):
            pass
        own_cluster.end_move(slot, scanned_first)
    else:
        seen += [next(keys) for _ in range(150)]
        own_cluster.move(slot, scanned_first)
    seen += keys
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


def test_clear_removes_its_own_keys_on_all_nodes(own_cluster: PrivateCluster) -> None:
    def cache_of(prefix: str) -> RedisCache:
        return RedisCache(own_cluster.url, {"KEY_PREFIX": prefix, "OPTIONS": PATIENT})

    caches = [cache_of(prefix) for prefix in ("a", "a:1", "ab", "")]
    data = {f"key{number}": number for number in range(60)}
    for each in caches:
        each.set_many(data)
        each.set_many(data, version=3)
    with caches[0].lock("lock", timeout=100):
        caches[0].clear()
        assert caches[0].lock("lock").locked()
    assert caches[0].get_many(data) == caches[0].get_many(data, version=3) == {}
    for each in caches[1:]:
        assert each.get_many(data) == each.get_many(data, version=3) == data


def test_a_primary_that_hands_over_is_left_for_the_new_one(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    cache.set("count", 0)
    slot = slot_of(cache, "count")
    for number in range(1, 4):  # and back: Redis votes only once in two minutes
        assert cache.incr("count") == 2 * number - 1
        new = own_cluster.fail_over(own_cluster.owner(slot))
        assert cache.incr("count") == 2 * number
        assert topology_of(cache).owner(slot).port == new.port


def test_after_the_death_of_a_primary_only_its_slots_fail_until_its_replica_has_them(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    names = [f"key{number}" for number in range(30)]
    cache.set_many(dict.fromkeys(names, "value"))
    slot = slot_of(cache, "key0")
    dead = own_cluster.owner(slot)
    replica = own_cluster.replica_of(dead)
    until(lambda: has_all_of(replica, dead), "the replica to have all")
    others = [name for name in names if own_cluster.owner(slot_of(cache, name)) is not dead]
    store = cache._store  # noqa: SLF001 (what its poller does has no API)
    seen = store.get_many([cache.make_key(name) for name in names])
    dead.kill()
    with pytest.raises(StoreUnavailable):
        cache.set("key0", "new")
    changed = {cache.make_key(name) for name in set(names) - set(others)}
    assert set(store._changed(seen)) == changed, "waits on the other nodes are woken too"  # noqa: SLF001
    assert cache.get_many(others) == dict.fromkeys(others, "value")
    with pytest.raises(StoreUnavailable):
        cache.get_many(names)
    with pytest.raises(OutcomeUnknown, match=r"\d+ of 30 keys were written, for the others"):
        cache.set_many(dict.fromkeys(names, "value"))
    replica.cluster("FAILOVER", "TAKEOVER")
    until(lambda: works(cache, "key0"), "the new primary to be found", 60)
    assert topology_of(cache).owner(slot).port == replica.port
    assert cache.get_many(names) == dict.fromkeys(names, "value")
    assert cache.stats()["breaker_open_now"] == 0
    own_cluster.revive(dead)


def stores(cache: RedisCache, key: str, value: int) -> bool:
    """Store the value; return False if a node was too slow."""
    try:
        cache.set(key, value)
    except (StoreUnavailable, OutcomeUnknown):
        return False
    return True


def test_a_write_whose_outcome_is_unknown_is_not_repeated_at_the_new_primary(
    build: Build, own_cluster: PrivateCluster
) -> None:
    cache, key = build(SOCKET_TIMEOUT=0.3), build().make_key("count")
    until(lambda: stores(cache, "count", 1), "the count to be stored")
    stopped = own_cluster.owner(slot_of(cache, "count"))
    replica = own_cluster.replica_of(stopped)
    until(lambda: has_all_of(replica, stopped), "the replica to have all")
    stopped.send(signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknown):
            cache.incr("count")
        replica.cluster("FAILOVER", "TAKEOVER")
        until(lambda: works(cache, "count"), "the new primary to be found", 60)
        assert replica.command("GET", key) == b"1"
        until(lambda: stores(cache, "count", 5), "a write at the new primary")
        assert replica.command("GET", key) == b"5"
    finally:
        stopped.send(signal.SIGCONT)
    until(stopped.follows, "the old primary to follow", 60)


def test_a_slot_without_an_owner_is_unavailable_until_it_has_one(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    cache.set("key", "value")
    slot = slot_of(cache, "key")
    owner = own_cluster.owner(slot)
    for node in own_cluster.primaries():
        node.cluster("DELSLOTS", slot)
    try:
        for call in (lambda: cache.get("key"), lambda: cache.set_many({"key": 1})):
            with pytest.raises(StoreUnavailable, match=f"slot {slot}"):
                call()
        with pytest.raises(StoreUnavailable):
            cache.clear()
    finally:
        owner.cluster("ADDSLOTS", slot)
        own_cluster.until_complete()
    until(lambda: works(cache, "key"), "the slot to be served", 60)


def test_a_user_with_the_documented_rights_is_enough(
    build: Build, own_cluster: PrivateCluster
) -> None:
    rights = "~* &cacheapp:lease:* +@read +@write +@scripting +@connection +@pubsub +asking +time"
    for node in own_cluster.nodes:
        words = f"on >s3cr3t {rights} +ping +cluster|slots +cluster|nodes"
        node.command("ACL", "SETUSER", "app", *words.split())
    named = f"redis+cluster://app:s3cr3t@{own_cluster.addresses}"
    cache = build(named)
    assert cache.get_or_set("key", lambda: "value") == "value"
    assert cache.keys("*") == ["key"]
    assert cache.incr_version("key") == 2
    with cache.lock("lock", timeout=100):
        cache.clear()
    with pytest.raises(StoreUnavailable) as caught:
        build(named.replace("s3cr3t", "wr0ng")).get("key")
    assert "wr0ng" not in str(caught.value)


def test_the_nodes_of_a_private_cluster_need_a_password_that_other_users_cannot_read(
    own_cluster: PrivateCluster,
) -> None:
    node = own_cluster.nodes[0]
    with (
        redis.Redis(port=node.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError, match=r"authenticated|required"),
    ):
        client.ping()
    assert node.password not in Path(f"/proc/{node.pid}/cmdline").read_text()
    assert (node.directory / "redis.conf").stat().st_mode & 0o077 == 0
    with redis.Redis.from_url(node.url) as client:
        assert client.ping()


def test_scans_find_the_primary_that_has_replaced_a_dead_one(
    build: Build, own_cluster: PrivateCluster
) -> None:
    names = {f"key{number}" for number in range(60)}
    # A store of its own for each: none learns of the failover from the calls of another.
    calls = ("begun", "keys", "delete_pattern", "clear", "flush")
    caches = {call: build(SOCKET_TIMEOUT=30 + number) for number, call in enumerate(calls)}
    flushed = build(SOCKET_TIMEOUT=29, owns_database=True)
    for each in (*caches.values(), flushed):
        each.set_many(dict.fromkeys(names, "value"))
    dead = own_cluster.owner(slot_of(flushed, "key0"))
    replica = own_cluster.replica_of(dead)
    until(lambda: has_all_of(replica, dead), "the replica to have all")
    begun = caches["begun"].iter_keys("*", 10)
    seen = {next(begun)}
    own_cluster.kill_primary(dead)
    assert seen | set(begun) == names
    assert set(caches["keys"].keys("*")) == names
    assert caches["delete_pattern"].delete_pattern("key?") == 10
    assert set(caches["keys"].keys("*")) == {name for name in names if len(name) == 5}
    caches["clear"].clear()
    assert caches["keys"].keys("*") == []
    caches["keys"].set_many(dict.fromkeys(names, "value"))
    flushed.clear()
    assert own_cluster.used_slots() == set()
    own_cluster.revive(dead)


def test_waits_are_woken_by_another_node_after_the_death_of_the_one_that_did(
    cache: RedisCache, own_cluster: PrivateCluster
) -> None:
    until(lambda: is_woken(cache), "the listener to listen")
    dead = listened_to(own_cluster)
    own_cluster.kill_primary(dead)
    until(lambda: is_woken(cache), "the listener to find another node")
    own_cluster.revive(dead)


def test_waits_are_woken_by_another_node_if_the_one_that_did_is_silent(
    build: Build, own_cluster: PrivateCluster
) -> None:
    cache = build(SOCKET_TIMEOUT=0.3)
    until(lambda: is_woken(cache), "the listener to listen")
    silent = listened_to(own_cluster)
    silent.send(signal.SIGSTOP)
    try:
        until(lambda: is_woken(cache), "the listener to find another node")
    finally:
        silent.send(signal.SIGCONT)
