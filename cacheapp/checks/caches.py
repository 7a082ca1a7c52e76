"""Checks of CACHES: what each alias is, where it is kept, and what it is used for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from cacheapp import backends, conf
from cacheapp.backends.core.not_installed import NotInstalled
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local.filesystem import filesystem_type, is_network_filesystem
from cacheapp.checks.entries import AliasConfig, alias_configs, redis_configs
from cacheapp.directory_trust import replaceable_reason, unwritable_reason

Messages = list[checks.CheckMessage]

UNSAFE_DIRECTORY_HINT = (
    "Run the checks as the user of the workers. Use a directory that only this user can write to, "
    "below directories that only root can write to: docs/howto/deploy.md shows one."
)

# Settings of other packages that name the alias for their counters.
_LIMITERS = {"RATELIMIT_USE_CACHE": "django-ratelimit", "AXES_CACHE": "django-axes"}


@checks.register(checks.Tags.caches)
def check_entries(**_: Any) -> Messages:
    """E002: report each unknown or ill-typed argument and option of cacheapp's backends."""
    return [
        checks.Error(
            f"CACHES[{config.alias!r}]: {mistake}",
            hint=_hint(config),
            id="cacheapp.E002",
        )
        for config in alias_configs(SharedCache)
        for mistake in config.mistakes()
    ]


def _hint(config: AliasConfig) -> str:
    if issubclass(config.backend, NotInstalled):
        return "Then run the check again: it cannot read the options of this alias without the package."
    return "docs/reference/backends.md lists the arguments and options."


def cache_directories() -> Iterator[tuple[AliasConfig, Path]]:
    """Yield each valid entry that keeps files on this machine, with its directory."""
    for kind in (backends.DiskCache, backends.LMDBCache, backends.NearCache):
        for config in alias_configs(kind):
            if not config.mistakes():
                options = config.params.get("OPTIONS", {})
                yield (
                    config,
                    Path(options["copy"] if kind is backends.NearCache else config.location),
                )


@checks.register(checks.Tags.caches)
def check_directories(**_: Any) -> Messages:
    """E003, E004, W015, W024: report directories that are unsafe for a cache, or cannot be used."""
    return [message for found in cache_directories() for message in _directory_errors(*found)]


def _directory_errors(config: AliasConfig, directory: Path) -> Messages:
    found: Messages = []
    if not directory.is_absolute():
        found.append(
            checks.Warning(
                f"CACHES[{config.alias!r}] keeps its files in {str(directory)!r}, a relative path: "
                "processes that start in different directories do not share them.",
                hint="Use an absolute path, such as BASE_DIR / 'cache'. (In LocMemCache, LOCATION is only a "
                "name; in DatabaseCache, that of a table.)",
                id="cacheapp.W024",
            )
        )
    if is_network_filesystem(directory):
        found.append(
            checks.Error(
                f"CACHES[{config.alias!r}] keeps its files on a network filesystem "
                f"({filesystem_type(directory)}), whose locks are unreliable.",
                hint="Use a directory on this machine's own disk, or RedisCache for several machines.",
                id="cacheapp.E003",
            )
        )
    if reason := replaceable_reason(directory):
        found.append(
            checks.Error(
                f"CACHES[{config.alias!r}]: {reason}. Its content may be unpickled, which can run code.",
                hint=UNSAFE_DIRECTORY_HINT,
                id="cacheapp.E004",
            )
        )
    return found + unwritable_warnings(f"CACHES[{config.alias!r}]", directory)


def unwritable_warnings(setting: str, directory: Path) -> Messages:
    """W015: return a warning if this user can neither create the directory nor write to it."""
    reason = unwritable_reason(directory)
    if reason is None:
        return []
    return [
        checks.Warning(
            f"{setting}: {reason}.",
            hint="Run the checks as the user of the workers. Create the directory for that user "
            f"(install -d -m 700 -o USER {directory}), or use one below BASE_DIR.",
            id="cacheapp.W015",
        )
    ]


@checks.register(checks.Tags.caches, deploy=True)
def check_tracking(**_: Any) -> Messages:
    """W021: report each NearCache whose server does not track keys for its user. Connects to it."""
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}]: Redis does not send what changes to this user ({reason}), so "
            "every read goes to Redis.",
            hint="Use Redis 6 or newer, or Valkey, and give the user the command CLIENT TRACKING. On a "
            "cluster, give it CLUSTER NODES and CLUSTER INFO too, on every node.",
            id="cacheapp.W021",
        )
        for config in alias_configs(backends.NearCache)
        if not config.mistakes() and (reason := _refusal(config))
    ]


def _refusal(config: AliasConfig) -> str:
    cache: backends.NearCache = config.backend(config.location, dict(config.params))
    return cache.tracking_refusal()


@checks.register(checks.Tags.caches, deploy=True)
def check_access(**_: Any) -> Messages:
    """W023: report each Redis alias whose server refuses its user or its connection. Connects to it."""
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}]: {reason}.",
            hint="docs/howto/redis.md shows the options of TLS, and the rights of the user.",
            id="cacheapp.W023",
        )
        for config in alias_configs(backends.RedisCache)
        if not config.mistakes()
        and (reason := config.backend(config.location, dict(config.params)).refusal())
    ]


# -- a cache that lives in one process ---------------------------------------------------------


def _local_backend_name(alias: str) -> str | None:
    """Return the class name if the alias does not share its entries between processes."""
    for kind in (LocMemCache, DummyCache):
        for config in alias_configs(kind):
            if config.alias == alias:
                return config.backend.__name__
    return None


def _critical_uses() -> Iterator[tuple[str, str, str]]:
    """Yield check id, alias and its user, for each use that a per-process cache breaks."""
    yield "cacheapp.W001", "default", "everything that uses Django's default cache"
    if settings.SESSION_ENGINE.endswith((".cache", ".cached_db")):
        yield "cacheapp.W002", settings.SESSION_CACHE_ALIAS, "sessions"
    for name, package in _LIMITERS.items():
        if hasattr(settings, name):
            yield "cacheapp.W003", getattr(settings, name), f"rate limits ({package})"
    rest = getattr(settings, "REST_FRAMEWORK", {})
    if isinstance(rest, Mapping) and rest.get("DEFAULT_THROTTLE_CLASSES"):
        yield "cacheapp.W003", "default", "rate limits (Django REST framework's throttles)"


def _local_cache_warnings() -> Messages:
    found: Messages = []
    for number, alias, user in _critical_uses():
        if name := _local_backend_name(alias):
            found.append(
                checks.Warning(
                    f"CACHES[{alias!r}] is {name}, which processes do not share, and several worker "
                    f"processes serve this project: {user} will differ from worker to worker.",
                    hint="Use a shared backend such as "
                    "cacheapp.backends.LMDBCache; or set CACHEAPP['WORKERS'] to 1 if there is only one worker.",
                    id=number,
                )
            )
    return found


def _worker_count() -> int | None:
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    return found.workers


@checks.register(checks.Tags.caches)
def check_local_caches(**_: Any) -> Messages:
    """W001 to W003, if more than one worker is configured."""
    return _local_cache_warnings() if (_worker_count() or 1) > 1 else []


@checks.register(checks.Tags.caches, deploy=True)
def check_local_caches_deployed(**_: Any) -> Messages:
    """W001 to W003 with `--deploy`, if the number of workers is unknown."""
    return _local_cache_warnings() if _worker_count() is None else []


# -- a server that others can reach ------------------------------------------------------------


@checks.register(checks.Tags.caches)
def check_servers(**_: Any) -> Messages:
    """W004 to W007 and W022 for each Redis alias."""
    return [
        message
        for config, options in redis_configs()
        for check in (_unsigned_pickle, _small_pool, _empty_prefix, _tls_files)
        for message in check(config, options)
    ] + _client_side_caching()


def _unsigned_pickle(config: AliasConfig, options: dict[str, Any]) -> Messages:
    if options["reads_django_redis"] and options["signed"]:
        return [
            checks.Warning(
                f"CACHES[{config.alias!r}] trusts unsigned values: anyone who can write to the server can "
                "change sessions and all other values of plain data.",
                hint="Remove OPTIONS['reads_django_redis'] once no process of the old release runs.",
                id="cacheapp.W004",
            )
        ]
    if options["signed"] or options["serializer"] != "pickle":
        return []
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] unpickles unsigned values from a server: anyone who can write to "
            "the server can run code in this project.",
            hint="Remove OPTIONS['signed'] (the default is True), or set OPTIONS['serializer'] to 'json' or 'msgpack'.",
            id="cacheapp.W004",
        )
    ]


def _small_pool(config: AliasConfig, options: dict[str, Any]) -> Messages:
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    size = options["max_connections"]
    if found.threads is None or size >= found.threads:
        return []
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] has at most {size} connections for {found.threads} threads of a "
            "worker: threads will wait for connections.",
            hint=f"Set OPTIONS['max_connections'] to at least {found.threads}.",
            id="cacheapp.W005",
        )
    ]


def _client_side_caching() -> Messages:
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] enables redis-py's client-side caching, which is not thread-safe or "
            "fork-safe and ignores deadlines.",
            hint="Remove 'cache' and 'cache_config' from OPTIONS['CONNECTION_POOL_KWARGS'].",
            id="cacheapp.W006",
        )
        for config in alias_configs()
        if {"cache", "cache_config"} & set(_pool_kwargs(config.params))
    ]


def _pool_kwargs(params: Mapping[str, Any]) -> Mapping[str, Any]:
    options = params.get("OPTIONS", {})
    found = options.get("CONNECTION_POOL_KWARGS", {}) if isinstance(options, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _empty_prefix(config: AliasConfig, options: dict[str, Any]) -> Messages:
    if config.prefix or options["owns_database"]:
        return []
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] has no KEY_PREFIX: clear() removes every key of the form "
            "':<version>:…' in that database, including keys of other applications.",
            hint="Give the alias a KEY_PREFIX of its own, or set OPTIONS['owns_database'] to True if the database has no other user.",
            id="cacheapp.W007",
        )
    ]


def _tls_files(config: AliasConfig, _options: dict[str, Any]) -> Messages:
    backend: type[backends.RedisCache] = config.backend
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}]: {mistake}.",
            hint="Run the checks as the user of the workers, on a machine that has the files. They are PEM "
            "files of OPTIONS['CONNECTION_POOL_KWARGS'].",
            id="cacheapp.W022",
        )
        for mistake in backend.tls_mistakes(config.location, config.params)
    ]


@checks.register(checks.Tags.caches)
def check_prefixes(**_: Any) -> Messages:
    """W008: report a KEY_PREFIX that covers the keys of another alias on the same store."""
    found = [config for config, options in redis_configs() if config.prefix]
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] has the KEY_PREFIX {config.prefix!r}, which also covers the keys of "
            f"CACHES[{other.alias!r}] ({other.prefix!r}) on the same store: clear() removes the keys of both.",
            hint="Choose prefixes so that neither starts with the other.",
            id="cacheapp.W008",
        )
        for config in found
        for other in found
        if _prefixes_overlap(config, other)
    ]


def _prefixes_overlap(config: AliasConfig, other: AliasConfig) -> bool:
    if config.location != other.location or config.params == other.params:
        return False  # another store, or one cache under two aliases
    return other.prefix == config.prefix or other.prefix.startswith(config.prefix + ":")
