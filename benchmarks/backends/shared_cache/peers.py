"""The caches side by side: each with its defaults, but room for all that is measured.

Entries have a deadline, as most do, but a day away, and nothing is evicted: what is compared is the
work, not the policy. Servers are private, on socket files; files lie in one directory.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.backends.shared_cache.memcached import MemcachedServer
from benchmarks.measuring import set_up_django
from cacheapp.processes.servers import RedisServer, ServerFailed

_DAY_S = 86_400
_ENTRIES = 20_000_000
_BYTES = 2**30
Entry = dict[str, Any]
Server = RedisServer | MemcachedServer

# By the name in all tables: the backend, and the server that it asks.
_BACKENDS = {
    "locmem": "django.core.cache.backends.locmem.LocMemCache",
    "filebased": "django.core.cache.backends.filebased.FileBasedCache",
    "database": "django.core.cache.backends.db.DatabaseCache",
    "diskcache": "diskcache.DjangoCache",
    "redis": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
    "pylibmc": "django.core.cache.backends.memcached.PyLibMCCache",
    "pymemcache": "django.core.cache.backends.memcached.PyMemcacheCache",
    "our-lmdb": "cacheapp.backends.LMDBCache",
    "our-disk": "cacheapp.backends.DiskCache",
    "our-redis": "cacheapp.backends.RedisCache",
}
NAMES = tuple(_BACKENDS)
_REDIS = {"redis", "django-redis", "our-redis"}
_MEMCACHED = {"pylibmc", "pymemcache"}
_LIMITED_BY_NUMBER = {"locmem", "filebased", "database"}
_LIMITED_BY_BYTES = {"diskcache", "our-disk", "our-lmdb"}


@dataclasses.dataclass(frozen=True)
class Peers:
    """What can be measured here."""

    caches: dict[str, Entry]
    directory: Path
    servers: dict[str, Server]
    missing: dict[str, str]
    """Why a cache cannot be measured, by name."""


@contextlib.contextmanager
def side_by_side(wanted: Sequence[str], directory: Path) -> Iterator[Peers]:
    """Start what the wanted caches need, and set Django up with all of them."""
    missing = {name: why for name in wanted if (why := _why_missing(name))}
    names = [name for name in wanted if name not in missing]
    with contextlib.ExitStack() as stack:
        servers = _servers(names, missing, stack)
        names = [name for name in names if name not in missing]
        caches = {name: _entry(name, directory, servers) for name in names}
        (directory / "state").mkdir()
        setup = {
            # Django insists on an alias of this name.
            "caches": {"default": {"BACKEND": _BACKENDS["locmem"]}, **caches},
            "database": str(directory / "database.sqlite3"),
            "state": str(directory / "state"),
        }
        os.environ["BENCHMARK_SETUP"] = json.dumps(setup)
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.backends.shared_cache.settings"
        set_up_django()
        if "database" in names:
            from django.core.management import call_command  # noqa: PLC0415 (needs the settings)

            call_command("createcachetable")
        yield Peers(caches, directory, servers, missing)


def server_of(name: str) -> str | None:
    """Return which server holds the cache's entries; `None` for files and memory of its own."""
    return "redis" if name in _REDIS else "memcached" if name in _MEMCACHED else None


def entry_in(name: str, directory: Path, size_limit: int = _BYTES) -> Entry:
    """Return the entry in CACHES of a cache without a server, with its files in `directory`."""
    entry: Entry = {"BACKEND": _BACKENDS[name], "TIMEOUT": _DAY_S, "LOCATION": str(directory)}
    if name in _LIMITED_BY_NUMBER:
        entry["OPTIONS"] = {"MAX_ENTRIES": _ENTRIES}
    elif name in _LIMITED_BY_BYTES:
        entry["OPTIONS"] = {"size_limit": size_limit}
    return entry


def _entry(name: str, directory: Path, servers: dict[str, Server]) -> Entry:
    entry = entry_in(name, directory / name)
    server = server_of(name)
    if server is not None:
        entry["LOCATION"] = servers[server].url
        entry["KEY_PREFIX"] = name
    elif name == "database":
        entry["LOCATION"] = "cache_table"
    return entry


def _why_missing(name: str) -> str | None:
    if name in _MEMCACHED and importlib.util.find_spec(name) is None:  # named like its package
        return f"the package {name} is not installed (requirements-bench.txt)"
    return None


def _servers(
    names: Sequence[str], missing: dict[str, str], stack: contextlib.ExitStack
) -> dict[str, Server]:
    """Return the servers that could be started; note in `missing` who has to do without."""
    servers: dict[str, Server] = {}
    kinds: dict[str, type[Server]] = {"redis": RedisServer, "memcached": MemcachedServer}
    for kind, server in kinds.items():
        asking = [name for name in names if server_of(name) == kind]
        if not asking:
            continue
        try:
            instance = server()
            stack.enter_context(instance)
            servers[kind] = instance.start()
        except ServerFailed as exc:
            missing.update(dict.fromkeys(asking, str(exc)))
    return servers
