"""Helpers of the DiskCache tests: our caches, stock caches, and functions for child processes."""

import multiprocessing
import os
from pathlib import Path
from typing import Any, cast

import diskcache
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp.backends import DiskCache
from tests.contract.clients import Clients

LARGE = 40_000  # bytes: above the 32 KiB from which diskcache keeps values in files
STOCK = "diskcache.DjangoCache"
OURS = "cacheapp.backends.DiskCache"


def use(settings: Settings, location: Path, backend: str = OURS, **options: Any) -> Any:
    """Configure the alias `default` as a cache in a directory; return it."""
    settings.CACHES = {
        "default": {"BACKEND": backend, "LOCATION": str(location), "OPTIONS": options}
    }
    return caches["default"]


def ours(settings: Settings, location: Path, **options: Any) -> DiskCache:
    """Configure `default` as a DiskCache."""
    return cast("DiskCache", use(settings, location, **options))


def stock(settings: Settings, location: Path, **options: Any) -> diskcache.DjangoCache:
    """Configure `default` as diskcache's own backend."""
    made: diskcache.DjangoCache = use(settings, location, STOCK, **options)
    _stock.append(made)
    return made


_stock: list[diskcache.DjangoCache] = []


def close_stock() -> None:
    """Close this thread's connections of the stock caches that a test has made."""
    while _stock:
        _stock.pop().close()


def forked(settings: Settings) -> Clients:
    """Return clients of `default` that are forked from this process."""
    context = cast("Any", multiprocessing.get_context("fork"))
    return Clients(context, settings.CACHES, settings.CACHEAPP)


def shards(location: Path) -> list[Path]:
    """Return the directories of the shards of `default`."""
    return sorted((location / "default").glob("[0-9]*x[0-9][0-9][0-9]"))


def databases(location: Path) -> list[Path]:
    """Return the databases of `default`."""
    return sorted((location / "default").glob("[0-9]*x[0-9][0-9][0-9]/cache.db"))


def value_files(location: Path) -> list[Path]:
    """Return the value files under a directory."""
    return sorted(location.rglob("*.val"))


def bytes_under(location: Path) -> int:
    """Return the size of all files under a directory."""
    total = 0
    for folder, _, names in os.walk(location):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def open_databases(location: Path) -> list[str]:
    """Return the paths of the cache databases in a directory that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the descriptor that lists them
            continue
        if "cache.db" in target and target.startswith(str(location)):
            found.append(target)
    return found


def own_key(key: str, key_prefix: str, version: int) -> str:
    """Make a final key that hides the version from code that looks for a colon."""
    return f"{version}/{key_prefix}/{key}"
