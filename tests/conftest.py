"""What all tests share: a real Redis, and state of their own."""

import resource
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.processes.servers import RedisServer
from tests.contract.clients import stacks_of_all, stop_all

FILES = 10_000


def pytest_configure() -> None:
    """Let this process have many files open.

    Caches keep what they open until their process ends, and here one process has more than a thousand
    of them; the usual limit is 1,024 files, and may be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis for the whole run; not having one is a failure, never a skip."""
    with RedisServer() as server:
        yield server.start()


@pytest.fixture(autouse=True)
def _own_state(settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / "state"}


@pytest.fixture(autouse=True)
def _no_client_left() -> Iterator[None]:
    yield
    stop_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a test that failed where each of its client processes stood."""
    report = yield
    if call.when == "call" and report.failed:
        report.sections += stacks_of_all()
    return report
