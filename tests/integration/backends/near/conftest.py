"""Fixtures of the NearCache tests."""

from pathlib import Path

import pytest

from cacheapp.backends import NearCache
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.near import copy, listener
from cacheapp.processes.servers import RedisServer
from tests.integration.backends.near.parts import confirmed, ours


@pytest.fixture(autouse=True)
def _log_lines_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test see its own lines, which a process otherwise writes once a minute."""
    monkeypatch.setattr(copy, "_failures", LogThrottle())
    monkeypatch.setattr(listener, "_unsupported", LogThrottle())


@pytest.fixture
def cache(redis_server: RedisServer, tmp_path: Path) -> NearCache:
    """A cache whose copy is served, with a prefix of its own.

    The bound is long, so that a machine under load does not keep the copy from being served.
    """
    made = ours(redis_server, tmp_path, prefix=tmp_path.name, max_staleness=30)
    confirmed(made)
    return made
