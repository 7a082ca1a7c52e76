"""Clients that are started once, and an alias for each backend."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding
from cacheapp.processes.servers import RedisServer
from tests.integration.cachecheck.broken import BACKENDS
from tests.integration.cachecheck.broken_redis import ON_REDIS
from tests.integration.cachecheck.held_out import HELD_OUT

Workload = Callable[[CheckRun], list[PropertyFinding]]
Examine = Callable[..., dict[str, PropertyFinding]]


@dataclass
class Lab:
    """The clients, and the directory that they write to."""

    clients: Clients
    directory: Path
    redis: RedisServer
    """Behind the aliases on Redis alone: it may be disturbed."""


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """Three processes for all tests of this package: starting one costs more than most tests."""
    with tempfile.TemporaryDirectory(prefix="check-") as name, RedisServer() as server:
        directory = Path(name)
        aliases = {
            alias: f"{backend.__module__}.{alias}"
            for alias, backend in {**BACKENDS, **HELD_OUT}.items()
        }
        aliases["Right"] = "cacheapp.backends.DiskCache"
        aliases["LocMem"] = "django.core.cache.backends.locmem.LocMemCache"
        overrides: dict[str, Any] = {
            "CACHES": {
                "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
                **{
                    alias: {"BACKEND": backend, "LOCATION": str(directory / alias)}
                    for alias, backend in aliases.items()
                },
            },
            "CACHEAPP": {"STATE_DIR": directory / "state"},
        }
        url = server.start().url
        on_redis = {name: f"{kind.__module__}.{name}" for name, kind in ON_REDIS.items()}
        on_redis["Redis"] = "cacheapp.backends.RedisCache"
        for alias, backend in on_redis.items():
            overrides["CACHES"][alias] = {"BACKEND": backend, "LOCATION": url}
        overrides["CACHES"]["Down"] = {
            "BACKEND": "cacheapp.backends.RedisCache",
            "LOCATION": f"unix://{directory}/none.sock",
        }
        journals = directory / "journals"
        journals.mkdir()
        setup = Setup("Right", overrides, threads=2, directory=journals)
        with Clients(setup, 3) as clients:
            yield Lab(clients, journals, server)


@pytest.fixture
def examine(lab: Lab) -> Examine:
    """Run a workload on an alias; return its findings by property."""

    def examine(alias: str, workload: Workload, **how: Any) -> dict[str, PropertyFinding]:
        lab.clients.alias = alias
        if missing := lab.clients.processes - len(lab.clients.living):
            lab.clients.start(missing)
        options: dict[str, Any] = {"seconds": 0.4, "private": True, **how}
        run = CheckRun(lab.clients, Journals(lab.directory), f"check-{uuid4().hex[:8]}", **options)
        return {one.property: one for one in workload(run)}

    return examine
