"""RedisCache: shared by all processes on all machines that use the same Redis, on `django-redis`."""

import re
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from django.core.cache.backends.base import BaseCache, default_key_func
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory

from cacheapp.backends.core.extended_api import COLLECTION_METHODS, sync_twin
from cacheapp.backends.core.measured_methods import areport_call, report_call
from cacheapp.backends.core.options import Option, read_options
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.core.store import registry
from cacheapp.backends.redis.alias_client import (
    AliasClient,
    async_collection_method,
    collection_method,
)
from cacheapp.backends.redis.cluster.client import ClusterClient, address_of, url_of
from cacheapp.backends.redis.cluster.keys import END, tagged_key
from cacheapp.backends.redis.cluster.location import is_cluster, read_nodes, shown
from cacheapp.backends.redis.cluster.location import mistakes as cluster_mistakes
from cacheapp.backends.redis.cluster.store import ClusterStore
from cacheapp.backends.redis.connection_advice import is_refusal, is_tls, tls_mistakes
from cacheapp.backends.redis.connection_pool import connection_factory
from cacheapp.backends.redis.django_redis_format import RedisCodec
from cacheapp.backends.redis.on_error import apply_error_policy
from cacheapp.backends.redis.options import (
    DJANGO_REDIS,
    ELSEWHERE,
    OPTIONS,
    read_location,
    redacted,
)
from cacheapp.backends.redis.store import RedisStore
from cacheapp.errors import ClearRefused, StoreUnavailable


@apply_error_policy
class RedisCache(SharedCache):
    """A cache in one Redis server (6.2 or newer), in the primary that Sentinel reports, or in a cluster."""

    OPTIONS: ClassVar[Mapping[str, Option]] = OPTIONS
    OPTIONS_ELSEWHERE: ClassVar[Mapping[str, str]] = ELSEWHERE
    _store: RedisStore
    _codec: RedisCodec

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        if self.key_func is default_key_func and is_cluster(location, params.get("OPTIONS")):
            self.key_func, self.key_end = tagged_key, END

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`; none contains a password."""
        found = super().mistakes(location, params)
        options = params.get("OPTIONS", {})
        if is_cluster(location, options):
            found = cluster_mistakes(location, params) + found
            return found or connection_mistakes(read_nodes(location)[0], options, "rediss+cluster")
        try:
            read_location(location)
        except ValueError as exc:
            found.insert(0, str(exc))
        if isinstance(options, Mapping) and options.get("reads_django_redis") is True:
            found += [
                f"OPTIONS['reads_django_redis'] requires {name!r} to be {default!r}, which django-redis "
                f"can read; found {options[name]!r}"
                for name, default in (("serializer", "pickle"), ("compress_min_bytes", None))
                if options.get(name, default) != default
            ]
        return found or connection_mistakes(read_location(location), options, "rediss")

    @classmethod
    def tls_mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each file of TLS that this process cannot use, of a valid entry."""
        options = params.get("OPTIONS", {})
        read, _ = read_options(options, OPTIONS)
        if read["CONNECTION_FACTORY"]:
            return []
        url = read_nodes(location)[0] if is_cluster(location, options) else read_location(location)
        pool = pool_of(url, read)
        return tls_mistakes(pool.connection_kwargs) if is_tls(pool) else []

    def refusal(self) -> str:
        """Return why the server refuses to serve a read; empty if it does not, or is down.

        For system checks, which root may run: the files in which an alias counts would be root's, so
        this uses a store of its own, whose failures no alias counts.
        """
        store = self._new_store()
        try:
            store.get(self.make_key("cacheapp-check"))
        except StoreUnavailable as exc:
            return str(exc) if is_refusal(exc) else ""
        finally:
            store.close()
        return ""

    def _new_codec(self) -> RedisCodec:
        return RedisCodec(
            self.options["serializer"],
            self.options["compress_min_bytes"],
            signed=self.options["signed"],
            reads_django_redis=self.options["reads_django_redis"],
        )

    def _shared_store(self) -> RedisStore:
        settings = hashable(self.params.get("OPTIONS", {}))
        kind = ClusterStore if self._is_on_cluster() else RedisStore
        store: RedisStore = registry.get_or_create((kind, self._nodes(), settings), self._new_store)
        store.counters.add(self._counters)
        return store

    def _new_store(self) -> RedisStore:
        nodes = self._nodes()
        if self._is_on_cluster():
            return ClusterStore(*cluster_store_arguments(nodes, self.options))
        return RedisStore(*store_arguments(nodes, self.options))

    def _is_on_cluster(self) -> bool:
        return is_cluster(self.location, self.params.get("OPTIONS"))

    def _nodes(self) -> tuple[str, ...]:
        """Return the URLs of the server, or of the nodes of a cluster that are named."""
        return (
            read_nodes(self.location) if self._is_on_cluster() else (read_location(self.location),)
        )

    @property
    def client(self) -> AliasClient:
        """What django-redis's client offers for this alias; `get_redis_connection(alias)` uses it."""
        return AliasClient(self, self._store.client.get_client)

    if not TYPE_CHECKING:  # for a type checker, every attribute would exist

        def __getattr__(self, name: str) -> Any:
            """Return django-redis's method on sets, hashes or sorted sets, or its async twin."""
            if name in COLLECTION_METHODS:
                method = collection_method(
                    self, lambda: self._store.client, self._codec.for_members, name
                )
                return report_call(self, name, method)
            if (twin := sync_twin(name)) is not None:
                method = async_collection_method(getattr(self, twin), name)
                return areport_call(self, twin, method)
            return super().__getattr__(name)

    def clear(self) -> None:
        """Remove this alias's own keys, of all versions; never another application's.

        Not atomic: an entry that is written during the call may be kept or removed. With
        `owns_database` all keys of the database are removed, atomically.
        """
        if self.options["owns_database"]:
            self._store.flush()
        elif self.key_end is None:
            raise ClearRefused(
                "clear() requires Django's default KEY_FUNCTION: with another one, the keys of this "
                "alias cannot be distinguished from others. Set OPTIONS['owns_database'] = True if "
                "nothing else uses this database; nothing was removed"
            )
        else:
            self._store.clear(self.key_prefix)


def connection_mistakes(url: str, options: Mapping[str, Any], secure: str) -> list[str]:
    """Return why redis-py can make no connection with these options, of which each is valid by itself."""
    read, _ = read_options(options, OPTIONS)
    factory = read["CONNECTION_FACTORY"]
    if factory and import_string(factory).__module__ != ConnectionFactory.__module__:
        return []  # it may do more than construct objects
    try:
        pool_of(url, read).make_connection()
    except (ImproperlyConfigured, TypeError, redis.RedisError) as exc:
        return [_why_refused(exc, url, options, secure)]
    return []


def _why_refused(exc: Exception, url: str, options: Mapping[str, Any], secure: str) -> str:
    """Return a sentence about options of which redis-py or django-redis makes no connection."""
    if isinstance(exc, ImproperlyConfigured):
        if "SENTINELS" not in options:
            return "OPTIONS['SENTINELS'] is missing, which the other options for Sentinel require"
        return f"django-redis refuses the options of connections: {exc}"
    name = re.search(r"unexpected keyword argument '(\w+)'", str(exc))
    if name is None:
        return f"redis-py refuses the options of connections: {exc}"
    if name[1].startswith("ssl_") and not url.startswith("rediss://"):
        return f"{name[1]!r} applies only to TLS; expected a LOCATION with '{secure}://'"
    found = "in OPTIONS['CONNECTION_POOL_KWARGS'] or in the query of LOCATION"
    return f"redis-py's connections have no argument {name[1]!r}, which is {found}"


def build_client(url: str, options: Mapping[str, Any]) -> Any:
    """Return django-redis's client, with our own connection pool; it does not connect yet."""
    client_options = {name: options[name] for name in DJANGO_REDIS if options[name] is not None}
    client_options["CONNECTION_POOL_KWARGS"] = {
        **client_options["CONNECTION_POOL_KWARGS"],
        "max_connections": options["max_connections"],
        "pool_timeout": options["pool_timeout"],
    }
    client_class = import_string(client_options["CLIENT_CLASS"])
    client = client_class([url], {"OPTIONS": dict(client_options)}, BaseCache({}))
    client.connection_factory = connection_factory(client_options)
    return client


def pool_of(url: str, options: Mapping[str, Any]) -> Any:
    """Return a pool of connections, not connected yet."""
    return build_client(url, options).get_client(write=True).connection_pool


def store_arguments(nodes: tuple[str, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the arguments for the RedisStore of one URL."""
    (url,) = nodes
    return lambda: build_client(url, options), f"Redis at {redacted(url)}"


def cluster_store_arguments(nodes: tuple[str, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the arguments for the ClusterStore of the nodes that LOCATION names."""

    def build_pool(host: str, port: int) -> Any:
        return pool_of(url_of(host, port, like=nodes[0]), options)

    return (
        [address_of(url) for url in nodes],
        build_pool,
        lambda: ClusterClient(nodes, options),
        f"the Redis Cluster of {shown(nodes)}",
        options["SOCKET_TIMEOUT"],  # how long a call waits for a slot that moves
    )


class _ByIdentity:
    """Wraps an unhashable object: equal only to itself, and kept alive."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.value is self.value


def hashable(value: Any) -> Hashable:
    """Return options as a dict key: equal only if all of them are equal in value and type."""
    if isinstance(value, Mapping):
        return frozenset((name, hashable(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(hashable(part) for part in value)
    try:
        hash(value)
    except TypeError:
        return _ByIdentity(value)
    return (type(value), value)
