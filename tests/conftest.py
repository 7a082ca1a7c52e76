"""Fixtures of all tests: a real Redis, and a private state directory."""

import gc
import logging
import resource
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer
from tests.contract.clients import stacks_of_all, stop_all
from tests.open_files import close_below
from tests.temporary import LeftBehind

FILES = 10_000
LONG_FIRST = (
    *("tests/system/", "tests/browser/", "tests/integration/lab/", "tests/integration/cachecheck/"),
    *("tests/integration/docs/", "tests/contract/"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Raise the limit of open files, usually 1,024: some tests use many connections.

    Let Ctrl-C end the servers of tests also if this run ignores it, as one in the background of a shell.
    Give the whole run, with the processes of xdist, one temporary directory.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # With `-X dev` it warns of each callback that takes 100 ms, as many do on a busy machine.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LeftBehind(), "left-behind")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In lanes, begin with the long files: one at the end would leave the other lanes without work.

    Those of a package come together, which share a browser or clients.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: [not item.nodeid.startswith(name) for name in LONG_FIRST])


def pytest_collection_finish() -> None:
    """Leave out the tests themselves where garbage is collected, as some tests do again and again.

    They are half a million objects: 0.2 s of CPU each time, and more in a fork.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis for the whole run; if there is none, tests fail and are not skipped."""
    with RedisServer() as server:
        yield server.start()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[PrivateCluster]:
    """A real Redis Cluster for the whole run. Its nodes never take a busy one for dead."""
    with PrivateCluster() as cluster:
        yield cluster.start()


@pytest.fixture(autouse=True)
def _own_state(settings: Settings, tmp_path: Path) -> Iterator[None]:
    # Beside `tmp_path`: a thread of an earlier test may open counters there at any time.
    state = tmp_path.with_name(f"{tmp_path.name}-state")
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": state}
    yield
    # A page starts it, below the STATE_DIR of its test; in another one it would not be found.
    if (agent := sys.modules.get("cacheapp.demo.worker_agent")) is not None:
        agent.stop()
    close_below(tmp_path)
    close_below(state)


@pytest.fixture(autouse=True)
def _no_client_left() -> Iterator[None]:
    yield
    stop_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the stacks of all client processes to the report of a failed test."""
    report = yield
    if call.when == "call" and report.failed:
        report.sections += stacks_of_all()
    return report
