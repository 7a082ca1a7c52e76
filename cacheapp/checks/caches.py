"""Checks of CACHES: what each alias is, where it is kept, and what it is used for."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.utils.module_loading import import_string

from cacheapp import conf
from cacheapp.backends import DiskCache, LMDBCache, RedisCache
from cacheapp.backends.core.options import read_options
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local.filesystem import filesystem_type, is_network_filesystem
from cacheapp.backends.local.shared_directory import location_problem

Messages = list[checks.CheckMessage]

# Where other packages say which alias counts their attempts.
_LIMITERS = {"RATELIMIT_USE_CACHE": "django-ratelimit", "AXES_CACHE": "django-axes"}


@dataclasses.dataclass(frozen=True)
class _Entry:
    """An entry of CACHES that can be imported; looking at it opens no store."""

    alias: str
    backend: type
    location: Any
    params: dict[str, Any]

    def mistakes(self) -> list[str]:
        """Return the mistakes in an entry of one of our backends."""
        backend: Any = self.backend
        found: list[str] = backend.mistakes(self.location, self.params)
        return found

    @property
    def prefix(self) -> str:
        return str(self.params.get("KEY_PREFIX", ""))


def _entries(kind: type = object) -> Iterator[_Entry]:
    """Yield the entries whose class is of a kind."""
    for alias, entry in settings.CACHES.items():
        params = dict(entry)
        location = params.pop("LOCATION", "")
        try:
            backend = import_string(params.pop("BACKEND"))
        except (ImportError, KeyError):
            continue  # Django itself says so
        if issubclass(backend, kind):
            yield _Entry(alias, backend, location, params)


def _on_servers() -> Iterator[tuple[_Entry, dict[str, Any]]]:
    """Yield each RedisCache in which there is no mistake, with its options."""
    for entry in _entries(RedisCache):
        if not entry.mistakes():
            yield entry, read_options(entry.params.get("OPTIONS", {}), RedisCache.OPTIONS)[0]


@checks.register(checks.Tags.caches)
def check_entries(**_: Any) -> Messages:
    """E002: report each unknown or ill-typed argument and option of our backends."""
    return [
        checks.Error(
            f"CACHES[{entry.alias!r}]: {mistake}",
            hint="docs/reference/backends.md lists them.",
            id="cacheapp.E002",
        )
        for entry in _entries(SharedCache)
        for mistake in entry.mistakes()
    ]


@checks.register(checks.Tags.caches)
def check_directories(**_: Any) -> Messages:
    """E003 and E004: report directories that cannot be trusted with a cache."""
    return [
        message
        for kind in (DiskCache, LMDBCache)
        for entry in _entries(kind)
        if not entry.mistakes()
        for message in _directory(entry)
    ]


def _directory(entry: _Entry) -> Messages:
    found: Messages = []
    if is_network_filesystem(entry.location):
        found.append(
            checks.Error(
                f"CACHES[{entry.alias!r}] keeps its files on a network filesystem "
                f"({filesystem_type(entry.location)}), whose locks cannot be relied on.",
                hint="Use a directory on this host's own disk, or RedisCache for several hosts.",
                id="cacheapp.E003",
            )
        )
    if reason := location_problem(Path(entry.location)):
        found.append(
            checks.Error(
                f"CACHES[{entry.alias!r}]: {reason}. What is in it may be unpickled.",
                hint="Use a directory that only this user can write to.",
                id="cacheapp.E004",
            )
        )
    return found


# -- a cache that lives in one process ---------------------------------------------------------


def _in_one_process(alias: str) -> str | None:
    """Return the class name if the alias's entries live in one process, or nowhere."""
    for kind in (LocMemCache, DummyCache):
        for entry in _entries(kind):
            if entry.alias == alias:
                return entry.backend.__name__
    return None


def _uses() -> Iterator[tuple[str, str, str]]:
    """Yield check id, alias and what uses it, where a wrong answer does harm."""
    yield "cacheapp.W001", "default", "whatever uses Django's default cache"
    if settings.SESSION_ENGINE.endswith((".cache", ".cached_db")):
        yield "cacheapp.W002", settings.SESSION_CACHE_ALIAS, "sessions"
    for name, package in _LIMITERS.items():
        if hasattr(settings, name):
            yield "cacheapp.W003", getattr(settings, name), f"rate limits ({package})"
    rest = getattr(settings, "REST_FRAMEWORK", {})
    if isinstance(rest, Mapping) and rest.get("DEFAULT_THROTTLE_CLASSES"):
        yield "cacheapp.W003", "default", "rate limits (Django REST framework's throttles)"


def _local_caches() -> Messages:
    found: Messages = []
    for number, alias, user in _uses():
        if name := _in_one_process(alias):
            found.append(
                checks.Warning(
                    f"CACHES[{alias!r}] is {name}, which lives in one process, and several worker "
                    f"processes serve this project: {user} will differ from worker to worker.",
                    hint="Use a backend that the workers share, such as "
                    "cacheapp.backends.LMDBCache; or set CACHEAPP['WORKERS'] to 1 if there is one.",
                    id=number,
                )
            )
    return found


def _workers() -> int | None:
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    return found.workers


@checks.register(checks.Tags.caches)
def check_local_caches(**_: Any) -> Messages:
    """W001 to W003, where more than one worker is known to run."""
    return _local_caches() if (_workers() or 1) > 1 else []


@checks.register(checks.Tags.caches, deploy=True)
def check_local_caches_deployed(**_: Any) -> Messages:
    """W001 to W003 for a deployment of an unknown number of workers: taken for several."""
    return _local_caches() if _workers() is None else []


# -- a server that others can reach ------------------------------------------------------------


@checks.register(checks.Tags.caches)
def check_servers(**_: Any) -> Messages:
    """W004 to W007, for each alias on a server."""
    return [
        message
        for entry, options in _on_servers()
        for check in (_unsigned, _small_pool, _empty_prefix)
        for message in check(entry, options)
    ] + _client_side_caching()


def _unsigned(entry: _Entry, options: dict[str, Any]) -> Messages:
    if options["signed"] or options["serializer"] != "pickle":
        return []
    return [
        checks.Warning(
            f"CACHES[{entry.alias!r}] unpickles what it finds on a server, unsigned: whoever can write "
            "there can run code here.",
            hint="Leave out OPTIONS['signed'], or use the serializer 'json' or 'msgpack'.",
            id="cacheapp.W004",
        )
    ]


def _small_pool(entry: _Entry, options: dict[str, Any]) -> Messages:
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    size = options["max_connections"]
    if found.threads is None or size >= found.threads:
        return []
    return [
        checks.Warning(
            f"CACHES[{entry.alias!r}] has at most {size} connections for {found.threads} threads of a "
            "worker: threads will wait for each other.",
            hint=f"Set OPTIONS['max_connections'] to at least {found.threads}.",
            id="cacheapp.W005",
        )
    ]


def _client_side_caching() -> Messages:
    return [
        checks.Warning(
            f"CACHES[{entry.alias!r}] switches on redis-py's client-side caching, which is not safe under "
            "threads or after a fork and ignores deadlines.",
            hint="Remove 'cache' and 'cache_config' from OPTIONS['CONNECTION_POOL_KWARGS'].",
            id="cacheapp.W006",
        )
        for entry in _entries()
        if {"cache", "cache_config"} & set(_pool_arguments(entry.params))
    ]


def _pool_arguments(params: Mapping[str, Any]) -> Mapping[str, Any]:
    options = params.get("OPTIONS", {})
    found = options.get("CONNECTION_POOL_KWARGS", {}) if isinstance(options, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _empty_prefix(entry: _Entry, options: dict[str, Any]) -> Messages:
    if entry.prefix or options["owns_database"]:
        return []
    return [
        checks.Warning(
            f"CACHES[{entry.alias!r}] has no KEY_PREFIX: clear() removes every key of the form "
            "':<version>:…' on that server, whoever wrote it.",
            hint="Give the alias a KEY_PREFIX of its own, or set OPTIONS['owns_database'].",
            id="cacheapp.W007",
        )
    ]


@checks.register(checks.Tags.caches)
def check_prefixes(**_: Any) -> Messages:
    """W008: report a KEY_PREFIX whose keys take in those of another alias on the same store."""
    found = [entry for entry, options in _on_servers() if entry.prefix]
    return [
        checks.Warning(
            f"CACHES[{entry.alias!r}] has the KEY_PREFIX {entry.prefix!r}, which takes in the keys of "
            f"CACHES[{other.alias!r}] ({other.prefix!r}) on the same store: clear() removes both's.",
            hint="Give both prefixes of which neither begins the other.",
            id="cacheapp.W008",
        )
        for entry in found
        for other in found
        if _takes_in(entry, other)
    ]


def _takes_in(entry: _Entry, other: _Entry) -> bool:
    if entry.location != other.location or entry.params == other.params:
        return False  # elsewhere, or one cache by two names
    return other.prefix == entry.prefix or other.prefix.startswith(entry.prefix + ":")
