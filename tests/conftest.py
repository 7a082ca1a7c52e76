"""What all tests share: a real Redis, and state of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.lab.servers import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis for the whole run; not having one is a failure, never a skip."""
    with RedisServer() as server:
        yield server.start()


@pytest.fixture(autouse=True)
def _own_state(settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / "state"}
