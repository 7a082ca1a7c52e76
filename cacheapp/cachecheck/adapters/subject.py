"""Open a subject by its name: `mypackage.caches:make_cache`, an object or a function that makes one."""

import importlib
from importlib.metadata import packages_distributions, version
from typing import Any

from cacheapp.cachecheck.adapters.asynchronous import AiocacheAdapter, CashewsAdapter
from cacheapp.cachecheck.adapters.base import Adapter
from cacheapp.cachecheck.adapters.regions import CachelibAdapter, DogpileAdapter
from cacheapp.cachecheck.adapters.stores import (
    DiskcacheAdapter,
    MemcacheAdapter,
    RedisAdapter,
    StashAdapter,
)

ADAPTERS: dict[tuple[str, str], type[Adapter]] = {
    ("dogpile.cache", "CacheRegion"): DogpileAdapter,
    ("cachelib", "BaseCache"): CachelibAdapter,
    ("flask_caching", "Cache"): CachelibAdapter,
    ("cashews", "Cache"): CashewsAdapter,
    ("aiocache", "BaseCache"): AiocacheAdapter,
    ("redis", "Redis"): RedisAdapter,
    ("valkey", "Valkey"): RedisAdapter,
    ("pymemcache", "Client"): MemcacheAdapter,
    ("pymemcache", "PooledClient"): MemcacheAdapter,
    ("pymemcache", "HashClient"): MemcacheAdapter,
    ("diskcache", "Cache"): DiskcacheAdapter,
    ("diskcache", "FanoutCache"): DiskcacheAdapter,
    ("diskcache_community", "Cache"): DiskcacheAdapter,
    ("diskcache_community", "FanoutCache"): DiskcacheAdapter,
    ("gunicorn.dirty", "StashTable"): StashAdapter,
}
"""The adapter for each class, by the package and the name of the class or of one that it derives from."""


class NoSubject(Exception):
    """The subject cannot be opened; the message says why."""


def adapted(subject: Any) -> Any:
    """Return the subject itself if it has Django's methods, else an adapter of it."""
    for kind in type(subject).__mro__:
        for (package, name), adapter in ADAPTERS.items():
            module = f"{kind.__module__}."
            if kind.__name__ == name and module.startswith(f"{package}."):
                return adapter(subject)
    if any(callable(getattr(subject, f"{prefix}get", None)) for prefix in ("", "a")):
        return subject
    raise NoSubject(
        f"{type(subject).__module__}.{type(subject).__qualname__} is not a cache that is known here, "
        "and has no method get; write an adapter with get(key, default), set(key, value, timeout) "
        "and delete(key)"
    )


def open_subject(name: str) -> Any:
    """Return the cache that a name of the form `package.module:attribute` stands for."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise NoSubject(f"{name!r}: expected package.module:function, such as mysite.caches:make")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NoSubject(f"module {module_name} has no {attribute}")
        found = getattr(found, part)
    if (callable(found) and not hasattr(found, "get")) or isinstance(found, type):
        found = found()
    return adapted(found)


def about(cache: Any) -> tuple[str, dict[str, str]]:
    """Return the class of a subject, and the version of the package that has it."""
    subject = cache
    while isinstance(subject, Adapter) or type(subject).__name__ == "AsyncAdapter":
        subject = subject.subject
    kind = type(subject)
    package = kind.__module__.partition(".")[0]
    found = packages_distributions().get(package, [])
    return f"{kind.__module__}.{kind.__qualname__}", {name: version(name) for name in found[:1]}
