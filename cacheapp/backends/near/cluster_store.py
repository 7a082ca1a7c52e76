"""`Store` on a Redis Cluster with a copy on this machine.

What is copied was read from the node that has the slot in the view of the epoch: a primary that has
been replaced, and does not know it yet, sends no names of keys that change at the new one.
"""

from collections.abc import Sequence

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.lmdb.open_environment import OpenEnvironment
from cacheapp.backends.near.cluster import TrackedCluster
from cacheapp.backends.near.cluster_view import unpack_owners
from cacheapp.backends.near.records import Fill
from cacheapp.backends.near.store import Fetched, NearStore, as_fetched
from cacheapp.backends.near.tracking import Tracked
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.batches import in_batches
from cacheapp.backends.redis.cluster.executor import Command
from cacheapp.backends.redis.cluster.keys import key_slot
from cacheapp.backends.redis.cluster.store import ClusterStore
from cacheapp.backends.redis.encoding import encode_key
from cacheapp.backends.redis.executor import FailureKind

_READ = FailureKind.READ


class NearClusterStore(NearStore, ClusterStore):
    """One process's store: a `ClusterStore`, this machine's copy, and perhaps the listener.

    `_owners` is read and replaced as a whole: an epoch of an environment, and the id of the node of
    each slot in it. Epochs begin anew in the files that replace others.
    """

    _owners: tuple[OpenEnvironment | None, int, Sequence[bytes]] = (None, 0, ())

    def _build_tracked(self) -> Tracked:
        return TrackedCluster(self._own_executor.topology, self._build_pool, self._prefix)

    def fetch_one(self, key: str) -> Fetched:
        """Return what the cluster has."""
        encoded = encode_key(key)
        (left_ms, payload), node = self._executor.read_pair((b"PTTL", encoded), (b"GET", encoded))
        return as_fetched(payload, left_ms, node.id if node else b"")

    def fetch(self, keys: Sequence[str]) -> list[Fetched]:
        """Return for each key what the cluster has; in one step per slot."""
        found: dict[bytes, Fetched] = {}
        encoded = list(map(encode_key, keys))
        for part in in_batches(encoded):
            owners = self._executor.topology.owners()
            rows: list[tuple[bytes, Payload | None, int]] = []
            for own, reply in self._executor.execute_by_slot(part, _fetch, _READ):
                rows += zip(own, reply[::2], reply[1::2], strict=True)
            unchanged = self._executor.topology.owners() is owners  # else others may have replied
            for name, payload, left_ms in rows:
                node = owners[key_slot(name)] if unchanged else None
                found[name] = as_fetched(payload, left_ms, node.id if node else b"")
        return [found[name] for name in encoded]

    def is_of_owner(self, fill: Fill, key: str, origin: bytes) -> bool:
        """Return True if the node that replied has the slot in the epoch of the fill."""
        env, epoch, owners = self._owners
        if env is not fill.env or epoch < fill.epoch:
            env, epoch, packed = self.copy.owners()
            owners = unpack_owners(packed)
            self._owners = env, epoch, owners  # another thread may replace them at once
        slot = key_slot(encode_key(key))
        if origin and env is fill.env and epoch == fill.epoch and owners[slot] == origin:
            return True
        self._executor.topology.refresh()  # this process, or the listener, has an old view
        return False


def _fetch(keys: list[bytes]) -> Command:
    return (b"EVALSHA", scripts.FETCH.sha, b"%d" % len(keys), *keys)
