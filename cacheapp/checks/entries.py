"""The entries of CACHES, as the checks read them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from cacheapp import backends
from cacheapp.backends.core.options import read_options


@dataclasses.dataclass(frozen=True)
class AliasConfig:
    """An entry of CACHES whose backend can be imported. Reading it opens no store."""

    alias: str
    backend: type
    location: Any
    params: dict[str, Any]

    def mistakes(self) -> list[str]:
        """Return the mistakes in an entry of a cacheapp backend."""
        backend: Any = self.backend
        found: list[str] = backend.mistakes(self.location, self.params)
        return found

    @property
    def prefix(self) -> str:
        """The KEY_PREFIX."""
        return str(self.params.get("KEY_PREFIX", ""))


def alias_configs(kind: type = object) -> Iterator[AliasConfig]:
    """Yield the entries with a backend that is a subclass of `kind`."""
    for alias, config in settings.CACHES.items():
        params = dict(config)
        location = params.pop("LOCATION", "")
        try:
            backend = import_string(params.pop("BACKEND"))
        except (ImportError, KeyError):
            continue  # Django's own check reports it
        if issubclass(backend, kind):
            yield AliasConfig(alias, backend, location, params)


def redis_configs() -> Iterator[tuple[AliasConfig, dict[str, Any]]]:
    """Yield each valid RedisCache entry with its options."""
    for config in alias_configs(backends.RedisCache):
        if not config.mistakes():
            options = config.params.get("OPTIONS", {})
            yield config, read_options(options, backends.RedisCache.OPTIONS)[0]
