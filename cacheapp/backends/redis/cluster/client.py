"""The connections of a ClusterStore, and redis-py's own client of the cluster, for `get_client()`."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.cache.backends.base import BaseCache
from django_redis.client import DefaultClient
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from cacheapp.backends.redis.cluster.nodes import Address
from cacheapp.thread_lock import reentrant_lock

_OWN_ARGUMENTS = {
    "USERNAME": "username",
    "PASSWORD": "password",
    "SOCKET_TIMEOUT": "socket_timeout",
    "SOCKET_CONNECT_TIMEOUT": "socket_connect_timeout",
    "max_connections": "max_connections",
}


def address_of(url: str) -> Address:
    """Return the host and the port of a node's URL."""
    found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    return found.get("host", "localhost"), found.get("port", 6379)


def url_of(host: str, port: int, like: str) -> str:
    """Return the URL of a node, with the scheme, user and query of another one's."""
    before, mark, query = like.partition("?")
    scheme, _, rest = before.partition("://")
    user, at, _ = rest.rpartition("@")
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{user}{at}{name}:{port}/0{mark}{query}"


class ClusterClient(DefaultClient):  # type: ignore[misc]  # no types
    """django-redis's client, whose commands go to redis-py's RedisCluster.

    That one follows redirections, and repeats nothing whose reply was lost. It connects when it is
    first needed.
    """

    def __init__(self, nodes: Sequence[str], options: Mapping[str, Any]) -> None:
        super().__init__(list(nodes), {"OPTIONS": {}}, BaseCache({}))
        self._nodes = nodes
        self._own_options = options
        self._lock = reentrant_lock()
        self._cluster: RedisCluster | None = None

    def get_client(self, write: bool = True, tried: Any = None) -> Any:  # noqa: FBT001, FBT002
        """Return the redis.RedisCluster."""
        del write, tried  # there is one, and only primaries are used
        with self._lock:
            if self._cluster is None:
                self._cluster = self._connect()
            return self._cluster

    def _connect(self) -> RedisCluster:
        own = {
            name: self._own_options[option]
            for option, name in _OWN_ARGUMENTS.items()
            if self._own_options[option] is not None
        }
        return RedisCluster(
            url=self._nodes[0],
            startup_nodes=[_node(url) for url in self._nodes[1:]],
            retry=Retry(NoBackoff(), 0),
            require_full_coverage=False,
            **{**own, **self._own_options["CONNECTION_POOL_KWARGS"]},
        )


def _node(url: str) -> ClusterNode:
    return ClusterNode(*address_of(url))  # type: ignore[no-untyped-call]
