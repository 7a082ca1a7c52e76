"""What the tests of a cluster look at behind the cache."""

import os

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.cluster.executor import ClusterExecutor
from cacheapp.backends.redis.cluster.keys import key_slot
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.backends.redis.listener import wait_until_done
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.redis_cluster import ClusterServer, PrivateCluster


def slot_of(cache: RedisCache, key: str) -> int:
    """Return the slot of a key."""
    return key_slot(cache.make_key(key).encode())


def topology_of(cache: RedisCache) -> Topology:
    """Return what the cache knows of the cluster."""
    executor = cache._store.executor  # noqa: SLF001 (it has no API)
    assert isinstance(executor, ClusterExecutor)
    return executor.topology


def another(cluster: PrivateCluster, node: ClusterServer) -> ClusterServer:
    """Return a primary that is another one."""
    return next(each for each in cluster.primaries() if each is not node)


def has_all_of(replica: ClusterServer, primary: ClusterServer) -> bool:
    """Return True if the replica has received all that the primary has sent."""
    return bool(replica.command("ROLE")[4] >= primary.command("ROLE")[1])


def works(cache: RedisCache, key: str) -> bool:
    """Return True if the key can be read."""
    try:
        cache.get(key)
    except (StoreUnavailable, OutcomeUnknown):
        return False
    return True


def is_woken(cache: RedisCache) -> bool:
    """Return True if a wait of the cache would be woken by what is published."""
    listener = cache._store._listener  # noqa: SLF001 (it has no API)
    with listener.subscribe(b"cacheapp:lease:nothing") as subscription:
        return wait_until_done(subscription.confirmed, 1) and subscription.confirmed.result()


def listened_to(cluster: PrivateCluster) -> ClusterServer:
    """Return the primary that the listener of this process uses first."""
    primaries = sorted(cluster.primaries(), key=lambda node: node.port)
    return primaries[os.getpid() % len(primaries)]
