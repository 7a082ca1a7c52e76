"""Real servers for the system tests: Gunicorn with `gunicorn.conf.py`."""

import contextlib
import re
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from cacheapp.processes.servers import GunicornServer, RedisServer
from cacheapp.processes.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = 4

# Loads the project once instead of once per worker: for tests that do not care which.
QUICK_START = {"PRELOAD": "1"}

# What Gunicorn and Django print when a worker was killed, did not start, or a view crashed.
CRASHES = ("was sent SIG", "Exception in worker process", "Internal Server Error")

StartGunicorn = Callable[[Mapping[str, str]], GunicornServer]
NewEnv = Callable[[], dict[str, str]]


@pytest.fixture(scope="session")
def new_env(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], dict[str, str]]:
    """Return a function that creates the environment of a deployment with its own data."""

    def make() -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DATA_DIR": str(tmp_path_factory.mktemp("data")),
            "REDIS_URL": patient(redis_server.url),
            "DEMO": "1",
            "DEBUG": "0",
            "SECURE_SSL_REDIRECT": "0",
            "SECRET_KEY": "only-for-tests-" + "x" * 50,
            "WEB_CONCURRENCY": str(WORKERS),
            # A test that is not scheduled for some seconds keeps its connections.
            "GUNICORN_CMD_ARGS": "--keep-alive 60",
        }

    return make


def patient(url: str) -> str:
    """Return the URL of a Redis server, with a timeout that one that is not scheduled does not exceed."""
    return f"{url}&socket_timeout=60"


@pytest.fixture(scope="module")
def start_gunicorn() -> Iterator[StartGunicorn]:
    """Return a function that starts this project's Gunicorn; each must stop cleanly at the end."""
    with contextlib.ExitStack() as stack:

        def start(env: Mapping[str, str]) -> GunicornServer:
            patient_env = {"GRACEFUL_TIMEOUT": "60", **env}
            server = stack.enter_context(
                GunicornServer("project.wsgi:application", ROOT, patient_env)
            )
            stack.callback(assert_stops_cleanly, server, int(env["WEB_CONCURRENCY"]))
            return server.start()

        yield start


@pytest.fixture(scope="module", params=["0", "1"], ids=["fork", "preload"])
def gunicorn_env(request: pytest.FixtureRequest, new_env: NewEnv) -> dict[str, str]:
    """A deployment, once without and once with preload."""
    return {**new_env(), "PRELOAD": request.param}


@pytest.fixture(scope="module")
def gunicorn(gunicorn_env: dict[str, str], start_gunicorn: StartGunicorn) -> GunicornServer:
    """That deployment, served by Gunicorn with 4 workers."""
    return start_gunicorn(gunicorn_env)


def still_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that run. A zombie does not: it is a number that its parent has not read yet."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def has_own_handlers(worker: psutil.Process) -> bool:
    """Return whether a worker has its own signal handlers: in those of its master, a SIGTERM is lost."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        status = Path(f"/proc/{worker.pid}/status").read_text()
        (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
        of_worker, of_master = (
            int(caught, 16) >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGHUP)
        )
        return bool(of_worker and not of_master)
    return False


def until_all_can_stop(server: GunicornServer, workers: int) -> None:
    """Wait until Gunicorn has forked all its workers, and each takes a SIGTERM: it is sent only once."""
    master = psutil.Process(server.pid)

    def can_stop() -> bool:
        found = master.children()
        all_can = len(found) >= workers and all(map(has_own_handlers, found))
        return all_can or still_running([master]) == []

    until(can_stop, f"{workers} workers that take signals")


def assert_stops_cleanly(server: GunicornServer, workers: int) -> None:
    """Stop with SIGTERM; fail unless it ends with 0, no process stays and none crashed before."""
    if server.process is None:  # the test stopped it
        return
    until_all_can_stop(server, workers)
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    server.send(signal.SIGTERM)
    status = server.process.wait(120)
    printed = server.output()
    assert status == 0, f"Gunicorn ended with {status}; it printed:\n{printed}"
    assert still_running(family) == [], f"Gunicorn printed:\n{printed}"
    crashes = [sign for sign in CRASHES if sign in printed]
    assert not crashes, f"found {crashes} in what Gunicorn printed:\n{printed}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of each server to the report of a failed test."""
    report = yield
    if report.failed:
        for name, value in item.funcargs.items():
            server = getattr(value, "server", value)  # of a site
            if isinstance(server, GunicornServer | RedisServer):
                report.sections.append((f"{name} printed", server.output()))
    return report
