"""Two machines on one Redis: two groups of processes, each with a copy of its own."""

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
from cacheapp.processes.proxy import Proxy
from cacheapp.processes.servers import RedisServer

BOUND_S = 0.3
"""Short, so that a run of seconds exceeds it often. What is proved of one bound holds for any."""
_SIZE_LIMIT = 8 * 2**20
_PROCESSES = 2
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
    """A Redis, and machines that have copies of it.

    The first machine is connected directly, and its processes are started afresh. The last one is
    behind the proxy, and its processes are forked from one that has used the cache.
    """

    server: RedisServer
    machines: Sequence[Clients]
    proxy: Proxy
    bound_s: float
    prefix: str

    def name(self, machine: Clients) -> str:
        """Return the letter of a machine."""
        return machine.setup.directory.name


def copied(cache: Any) -> dict[str, Any] | None:
    """Return the entry of `CACHES` that makes a cache, if its copies have a bound on staleness."""
    kind, options = type(cache), getattr(cache, "options", None)
    if not isinstance(options, Mapping) or "max_staleness" not in options:
        return None
    entry = {"BACKEND": f"{kind.__module__}.{kind.__qualname__}", **cache.params}
    given = entry.get("OPTIONS", {})
    return {**entry, "OPTIONS": {name: given[name] for name in given if name not in _REPLACED}}


@contextlib.contextmanager
def site_of(entry: Mapping[str, Any], bound_s: float = BOUND_S) -> Iterator[Site]:
    """Start a private Redis and two machines with an entry of `CACHES`, on private copies."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachecheck-")))
        server = stack.enter_context(RedisServer()).start()
        proxy = stack.enter_context(Proxy(server.socket)).start()
        machines = []
        for name, url in (("a", server.url), ("b", proxy.url)):
            home = directory / name
            home.mkdir()
            setup = Setup("default", _overrides(entry, url, home, bound_s), directory=home)
            clients = Clients(setup, _PROCESSES, fork=url == proxy.url)
            machines.append(stack.enter_context(clients))
        yield Site(server, machines, proxy, bound_s, str(entry.get("KEY_PREFIX", "")))


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
