"""Workers that are asked from inside one of them: who answers, who is gone, who hangs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pytest_django.fixtures import Settings

from cacheapp.conf import state_dir
from cacheapp.demo import page_record, worker_agent, worker_rpc
from cacheapp.demo.page_record import record
from cacheapp.demo.verdict import LastChanges, Written
from cacheapp.demo.worker_rpc import Reply, Request, RpcServer, Worker
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import until

WRITTEN = Written("abc", 7)


def _echo(request: Request) -> dict[str, Any]:
    return {"received": request}


@pytest.fixture
def server() -> Iterator[RpcServer]:
    found = RpcServer(_echo)
    yield found
    found.close()


def _ask_all(within_s: float = 30.0) -> list[Reply]:
    return worker_rpc.call([(worker, {"n": 1}) for worker in worker_rpc.workers()], within_s)


def _name(token: str) -> Path:
    """Return where another worker of our Gunicorn would listen."""
    return state_dir() / "workers" / f"{os.getppid()}-1-{token}.sock"


def test_a_worker_that_listens_answers(server: RpcServer) -> None:
    (reply,) = _ask_all()
    assert (reply.worker.pid, reply.body, reply.gone) == (
        os.getpid(),
        {"received": {"n": 1}},
        False,
    )


def test_a_worker_that_left_is_not_asked(server: RpcServer) -> None:
    server.close()
    assert worker_rpc.workers() == []


def test_a_worker_that_was_killed_is_gone_and_forgotten(server: RpcServer) -> None:
    with socket.socket(socket.AF_UNIX) as dead, worker_rpc._short(_name("dead")) as address:  # noqa: SLF001
        dead.bind(address)  # and the kernel closes it when its process dies; the name stays
    assert sorted((reply.worker.pid, reply.gone) for reply in _ask_all()) == [
        (1, True),
        (os.getpid(), False),
    ]
    assert [worker.pid for worker in worker_rpc.workers()] == [os.getpid()]


def test_a_worker_that_hangs_makes_nobody_wait_longer_than_was_said(
    server: RpcServer,
) -> None:
    with socket.socket(socket.AF_UNIX) as hanging:
        with worker_rpc._short(_name("hanging")) as address:  # noqa: SLF001
            hanging.bind(address)
        hanging.listen(8)

        def answered() -> dict[str, Any] | None:
            found = {reply.worker.pid: reply for reply in _ask_all(within_s=2.0)}
            assert (found[1].body, found[1].gone) == (None, False)
            return found[os.getpid()].body

        # This process may be suspended for longer than was said: then nobody has answered in time.
        assert until(answered, "this worker to answer in time") == {"received": {"n": 1}}


def test_workers_of_another_gunicorn_are_not_asked(server: RpcServer) -> None:
    other = _name("x").with_name(f"{os.getppid() + 1}-1-x.sock")
    other.touch()
    assert [worker.pid for worker in worker_rpc.workers()] == [os.getpid()]


def test_a_request_that_crashes_is_no_answer_and_the_next_one_is_answered() -> None:
    def handler(request: Request) -> dict[str, Any]:
        return {"half": 10 / request["n"]}

    server = RpcServer(handler)
    try:
        (worker,) = worker_rpc.workers()
        crashed, fine = worker_rpc.call([(worker, {"n": 0}), (worker, {"n": 5})], 30)
    finally:
        server.close()
    assert (crashed.body, fine.body) == (None, {"half": 2.0})


def test_a_long_path_is_no_obstacle(settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / ("d" * 200)}
    server = RpcServer(_echo)
    try:
        assert [reply.body for reply in _ask_all()] == [{"received": {"n": 1}}]
    finally:
        server.close()


def test_a_worker_whose_directory_was_removed_can_be_found_again_from_its_next_page_on() -> None:
    worker_agent.start()
    try:
        shutil.rmtree(state_dir() / "workers")
        assert worker_rpc.workers() == []
        worker_agent.start()
        assert [worker.pid for worker in worker_rpc.workers()] == [os.getpid()]
    finally:
        worker_agent.stop()


_WITH_A_CHILD = """
import os, signal, django
django.setup()
from cacheapp.demo import worker_agent, worker_rpc
worker_agent.start()
(found,) = [one for one in worker_rpc.workers() if one.pid == os.getpid()]
if not os.fork():
    os.read(0, 1)  # until the test closes its end
    os._exit(0)
os.write(1, f"{found.path}".encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_child_of_a_dead_worker_does_not_listen_in_its_place() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _WITH_A_CHILD]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.wait(60) == -signal.SIGKILL
        path = Path(os.read(process.stdout.fileno(), 4096).decode())
        worker = Worker(os.getpid(), process.pid, path)
        (reply,) = worker_rpc.call([(worker, {"do": "present"})], 30)  # its child lives on
        process.stdin.close()
    assert reply.gone
    assert not path.exists()


def test_what_was_asked_is_there_for_the_next_one_and_only_for_its_alias() -> None:
    with record(changing=True) as kept:
        kept.put("lmdb", written=WRITTEN)
    with record() as kept:
        assert kept.of("lmdb") == LastChanges(WRITTEN)
        assert kept.of("disk") == LastChanges()


def test_a_record_of_another_version_counts_as_none() -> None:
    with record(changing=True) as kept:
        kept.put("lmdb", written=WRITTEN)
    (state_dir() / "page.json").write_text('{"lmdb": {"written": {"value": 1}}}')
    with record() as kept:
        assert kept.of("lmdb") == LastChanges()


def test_nobody_looks_while_somebody_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_record, "_LOCK_TIMEOUT_S", 0.2)
    with record(changing=True):
        with pytest.raises(StoreUnavailable, match="another worker holds it, or hangs"), record():
            pass
        with pytest.raises(StoreUnavailable), record(changing=True):
            pass


def test_many_may_look_at_the_same_time() -> None:
    inside = threading.Barrier(4)

    def look() -> None:
        with record():
            inside.wait(30)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not inside.broken


def test_a_request_that_no_thread_could_handle_costs_no_later_one(server: RpcServer) -> None:
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no new thread")):
        assert [reply.body for reply in _ask_all(5)] == [None]
    assert [reply.body for reply in _ask_all()] == [{"received": {"n": 1}}]


def test_a_server_without_a_thread_leaves_no_socket() -> None:
    with (
        mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no new thread")),
        pytest.raises(RuntimeError, match="no new thread"),
    ):
        RpcServer(_echo)
    assert worker_rpc.workers() == []
