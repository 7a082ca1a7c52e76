"""Private stores for a check: the entries of `CACHES`, moved to a directory and servers of their own."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.management import call_command
from django.utils.module_loading import import_string

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.session import ClientSession
from cacheapp.processes.memcached import MemcachedServer
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer

_CLUSTER = ("redis+cluster://", "rediss+cluster://")
_REDIS = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")


class NotPrivate(Exception):
    """The store of an alias cannot be replaced by a private one; the message has the reason."""


@dataclass(frozen=True)
class Stores:
    """The settings that differ from the project's, and the private servers by alias."""

    overrides: dict[str, Any]
    servers: Mapping[str, RedisServer | PrivateCluster]


@dataclass(frozen=True)
class _Places:
    """Where private stores are: in a directory, at a server of an alias, at the LOCATION of a memcached."""

    directory: Path
    servers: Mapping[str, RedisServer | PrivateCluster]
    memcached: str


@contextlib.contextmanager
def private_stores(aliases: list[str]) -> Iterator[Stores]:
    """Give each alias a private store; remove all of them at the end."""
    in_database = [alias for alias in aliases if _is(settings.CACHES[alias], DatabaseCache)]
    uses_memcached = any(_is(settings.CACHES[alias], BaseMemcachedCache) for alias in aliases)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachecheck-")))
        servers = _servers(stack, aliases)
        memcached = ""
        if uses_memcached:
            memcached = stack.enter_context(MemcachedServer()).start().location
        places = _Places(directory, servers, memcached)
        overrides: dict[str, Any] = {
            "CACHES": {
                alias: _entry(alias, entry, places) if alias in aliases else entry
                for alias, entry in settings.CACHES.items()
            },
            "CACHEAPP": {**getattr(settings, "CACHEAPP", {}), "STATE_DIR": directory / "state"},
        }
        if in_database:
            overrides["DATABASES"] = {"default": _database(directory)}
            overrides["DATABASE_ROUTERS"] = []
            _create_tables(in_database[0], overrides)
        yield Stores(overrides, servers)


def _servers(
    stack: contextlib.ExitStack, aliases: list[str]
) -> dict[str, RedisServer | PrivateCluster]:
    """Start a Redis, and a cluster, if an alias needs one; return each alias's."""
    entries = {alias: settings.CACHES[alias] for alias in aliases}
    on_cluster = [alias for alias, entry in entries.items() if is_on_cluster(entry)]
    on_redis = [
        alias
        for alias, entry in entries.items()
        if alias not in on_cluster and str(entry.get("LOCATION", "")).startswith(_REDIS)
    ]
    found: dict[str, RedisServer | PrivateCluster] = {}
    if on_redis:
        found |= dict.fromkeys(on_redis, stack.enter_context(RedisServer()).start())
    if on_cluster:
        found |= dict.fromkeys(on_cluster, stack.enter_context(PrivateCluster()).start())
    return found


def is_on_cluster(entry: Mapping[str, Any]) -> bool:
    """Return True if an entry of `CACHES` means a cluster."""
    location = entry.get("LOCATION", "")
    named = location[0] if isinstance(location, list | tuple) and location else location
    return str(named).startswith(_CLUSTER) or entry.get("OPTIONS", {}).get("cluster") is True


def _is(entry: Mapping[str, Any], kind: type) -> bool:
    return issubclass(import_string(entry["BACKEND"]), kind)


def _entry(alias: str, entry: Mapping[str, Any], places: _Places) -> dict[str, Any]:
    location = entry.get("LOCATION", "")
    if server := places.servers.get(alias):
        options = _without_credentials(entry.get("OPTIONS", {}))
        if "copy" in options:
            options["copy"] = str(places.directory / f"{alias}-copy")
        return {**entry, "LOCATION": server.url, "OPTIONS": options}
    if _is(entry, BaseMemcachedCache):
        return {**entry, "LOCATION": places.memcached}
    if isinstance(location, str | Path) and str(location).startswith("/"):
        return {**entry, "LOCATION": str(places.directory / f"{alias}-store")}
    if any(_is(entry, kind) for kind in (LocMemCache, DummyCache, DatabaseCache)):
        return dict(entry)
    raise NotPrivate(
        f"CACHES[{alias!r}]: cannot make a private store for LOCATION {location!r}; expected a "
        "directory, the URL of one Redis or of a cluster, a memcached, a DatabaseCache or a LocMemCache"
    )


def _without_credentials(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for a server without TLS and users; a password that it needs is in its URL."""
    found = {name: one for name, one in options.items() if name not in {"USERNAME", "PASSWORD"}}
    if isinstance(pool := found.get("CONNECTION_POOL_KWARGS"), Mapping):
        found["CONNECTION_POOL_KWARGS"] = {
            name: one
            for name, one in pool.items()
            if name not in {"username", "password"} and not name.startswith("ssl_")
        }
    return found


def _database(directory: Path) -> dict[str, Any]:
    """Return the settings of a SQLite database that suits many processes."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(directory / "database.sqlite3"),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def _create_tables(alias: str, overrides: dict[str, Any]) -> None:
    """Create the tables of the DatabaseCaches, in a process with these settings."""
    with (
        tempfile.TemporaryDirectory(prefix="cachecheck-") as directory,
        Clients(Setup(alias, overrides, directory=Path(directory)), 1) as clients,
    ):
        clients.run(_create)


def _create(_session: ClientSession) -> None:
    call_command("createcachetable", verbosity=0)
