"""Two machines on one Redis or one cluster: two groups of processes, each with a copy of its own."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.private import is_on_cluster
from cacheapp.processes.proxy import Proxy
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer

BOUND_S = 0.3
"""Short, so that a run of seconds exceeds it often. What is proved of one bound holds for any."""
_SIZE_LIMIT = 8 * 2**20
_PROCESSES = 2
_OTHER_ADDRESS = "127.0.0.2"  # of loopback, at which the nodes of a cluster are behind the proxy
_REPLACED = frozenset(
    {
        *("copy", "copy_exclude", "max_staleness", "size_limit", "on_error"),
        *("USERNAME", "PASSWORD", "SENTINELS", "SENTINEL_KWARGS", "cluster"),
        *("CLIENT_CLASS", "CONNECTION_FACTORY", "CONNECTION_POOL_CLASS", "CONNECTION_POOL_KWARGS"),
    }
)
"""Options that are about the project's own server and keys."""


@dataclass(frozen=True)
class Site:
    """A Redis or a cluster, and machines that have copies of it.

    The first machine is connected directly, and its processes are started afresh. The last one is
    behind the proxy, and its processes are forked from one that has used the cache.
    """

    store: RedisServer | PrivateCluster
    machines: Sequence[Clients]
    proxy: Proxy
    bound_s: float
    prefix: str

    @property
    def primaries(self) -> Sequence[RedisServer]:
        """The servers that execute writes."""
        store = self.store
        return store.primaries() if isinstance(store, PrivateCluster) else [store]

    @property
    def cluster(self) -> PrivateCluster:
        """The cluster, for its own faults."""
        assert isinstance(self.store, PrivateCluster)  # noqa: S101 (a caller's mistake)
        return self.store

    def name(self, machine: Clients) -> str:
        """Return the letter of a machine."""
        return machine.setup.directory.name


def copied(cache: Any) -> dict[str, Any] | None:
    """Return the entry of `CACHES` that makes a cache, if its copies have a bound on staleness.

    It has no LOCATION, and the option `cluster` if that is one.
    """
    kind, options = type(cache), getattr(cache, "options", None)
    if not isinstance(options, Mapping) or "max_staleness" not in options:
        return None
    entry = {"BACKEND": f"{kind.__module__}.{kind.__qualname__}", **cache.params}
    given = entry.get("OPTIONS", {})
    kept = {name: given[name] for name in given if name not in _REPLACED}
    if is_on_cluster({"LOCATION": cache.location, "OPTIONS": given}):
        kept["cluster"] = True
    return {**entry, "OPTIONS": kept}


@contextlib.contextmanager
def site_of(entry: Mapping[str, Any], bound_s: float = BOUND_S) -> Iterator[Site]:
    """Start a private Redis or cluster, and two machines with an entry of `CACHES` on private copies."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachecheck-")))
        store: RedisServer | PrivateCluster
        if is_on_cluster(entry):
            # The nodes name no host: a client reaches all of them where it has reached the first.
            options = ("--cluster-preferred-endpoint-type", "unknown-endpoint")
            store = stack.enter_context(PrivateCluster(options=options)).start()
            ports = [node.port for node in store.nodes]
            routes = {f"{_OTHER_ADDRESS}:{port}": f"127.0.0.1:{port}" for port in ports}
            urls = (store.url, store.url_at(_OTHER_ADDRESS))
        else:
            store = stack.enter_context(RedisServer()).start()
            routes = {str(directory / "proxy.sock"): str(store.socket)}
            urls = (store.url, f"unix://{directory / 'proxy.sock'}?db=0")
        proxy = stack.enter_context(Proxy(routes)).start()
        machines = []
        for name, url in zip("ab", urls, strict=True):
            home = directory / name
            home.mkdir()
            setup = Setup("default", _overrides(entry, url, home, bound_s), directory=home)
            clients = Clients(setup, _PROCESSES, fork=name == "b")
            machines.append(stack.enter_context(clients))
        yield Site(store, machines, proxy, bound_s, str(entry.get("KEY_PREFIX", "")))


def _overrides(entry: Mapping[str, Any], url: str, home: Path, bound_s: float) -> dict[str, Any]:
    options = {
        **entry.get("OPTIONS", {}),
        "copy": str(home / "copy"),
        "size_limit": _SIZE_LIMIT,
        "max_staleness": bound_s,
    }
    found: dict[str, Any] = {
        "CACHES": {"default": {**entry, "LOCATION": url, "OPTIONS": options}},
        "CACHEAPP": {"STATE_DIR": home / "state"},
    }
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):  # a cache without a project
        found["SECRET_KEY"] = secrets.token_hex(32)
    return found
