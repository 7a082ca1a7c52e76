import signal
from collections.abc import Iterator

import psutil
import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import AnswerLost, Connection, Moved, NotReached, Workers
from tests.system.conftest import QUICK_START, WORKERS, NewEnv, StartGunicorn


@pytest.fixture(scope="module")
def server(new_env: NewEnv, start_gunicorn: StartGunicorn) -> GunicornServer:
    return start_gunicorn({**new_env(), **QUICK_START})


@pytest.fixture
def workers(server: GunicornServer) -> Iterator[Workers]:
    with Workers(server.url, WORKERS, per_worker=2) as found:
        found.find()
        yield found


def test_replaced_workers_are_found_again(server: GunicornServer, workers: Workers) -> None:
    before = set(workers.pids)
    assert len(before) == WORKERS
    old = [psutil.Process(pid) for pid in before]
    server.send(signal.SIGHUP)  # replaces all workers gracefully
    until(lambda: not any(it.is_running() for it in old), "the old workers to end")
    after = workers.find()
    assert len(after) == WORKERS
    assert not before & set(after)
    assert sorted(workers.each("GET", "/api/worker")) == after


def test_a_worker_that_is_gone_is_not_mistaken_for_another(
    server: GunicornServer, workers: Workers
) -> None:
    gone = workers.pids[0]
    worker = psutil.Process(gone)
    worker.terminate()  # gracefully, as by max_requests
    until(lambda: not worker.is_running(), "the worker to end")
    with pytest.raises((AnswerLost, Moved)):
        workers.ask(gone, "PUT", "/api/cache/disk/moved", {"value": 1})
    assert gone not in workers.find()
    with pytest.raises(Moved, match=f"worker {gone} has ended"):
        workers.ask(gone, "GET", "/api/worker")


def test_each_connection_stays_with_its_worker(workers: Workers) -> None:
    def ask_often(_number: int, connection: Connection) -> set[int]:
        return {connection.ask("GET", "/api/worker").pid for _ in range(20)}

    seen = workers.together(ask_often)
    assert [len(pids) for pids in seen] == [1] * 2 * WORKERS
    assert sorted(pid for pids in seen for pid in pids) == sorted(workers.pids * 2)


def test_too_few_workers_are_an_error(server: GunicornServer) -> None:
    with (
        Workers(server.url, WORKERS + 1, within_s=1) as workers,
        pytest.raises(NotReached, match="workers answered within 1 s"),
    ):
        workers.find()


def test_a_server_that_is_not_there_is_an_error() -> None:
    with Workers("http://127.0.0.1:1", 2) as workers, pytest.raises(NotReached, match="refused"):
        workers.find()
