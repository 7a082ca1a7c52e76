import os
import signal
from dataclasses import replace
from functools import partial

import psutil
import pytest

from cacheapp.cachecheck.clients import ClientFailed, Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyVerdict
from cacheapp.cachecheck.workloads import registers
from cacheapp.cachecheck.workloads.bounded import has_begun
from cacheapp.consistency.history import OperationKind, Outcome
from cacheapp.processes.waiting import until
from tests.integration.cachecheck.conftest import Lab


def test_clients_can_be_forked_from_one_that_used_the_cache(lab: Lab) -> None:
    setup = replace(lab.clients.setup, alias="Right")
    with Clients(setup, 2, fork=True) as clients:
        pids = [client.pid for client in clients.living]
        parents = {psutil.Process(pid).ppid() for pid in pids}
        assert len(parents) == 1
        assert os.getpid() not in parents
        run = CheckRun(clients, Journals(lab.directory), "check-fork", seconds=0.2)
        found = registers.registers(run)
    assert {one.verdict for one in found} == {PropertyVerdict.HOLDS}, found
    until(lambda: not any(map(psutil.pid_exists, pids)), "the clients to end")


def dies(session: ClientSession) -> None:
    session.get("k")
    session.record(OperationKind.SET, "k", lambda: os.kill(os.getpid(), signal.SIGKILL), 5)


def fails(_session: ClientSession) -> None:
    raise RuntimeError("no")


def number(session: ClientSession) -> int:
    return session.number


@pytest.fixture
def clients(lab: Lab) -> Clients:
    lab.clients.alias = "Right"
    if missing := lab.clients.processes - len(lab.clients.living):
        lab.clients.start(missing)
    Journals(lab.directory).collect()
    return lab.clients


def test_a_call_that_its_process_did_not_survive_is_of_unknown_outcome(
    lab: Lab, clients: Clients
) -> None:
    victim = clients.living[0]
    with pytest.raises(ClientFailed, match="ended in the middle"):
        clients.run(dies, to=[victim], threads=1)
    assert victim not in clients.living
    read, written = Journals(lab.directory).collect()
    assert read.outcome is Outcome.OK
    assert (written.outcome, written.return_ns, written.argument) == (Outcome.INFO, None, 5)


def test_a_failure_of_one_leaves_no_answer_for_the_next_order(clients: Clients) -> None:
    with pytest.raises(ClientFailed, match="RuntimeError: no"):
        clients.run(fails)
    assert sorted(clients.run(number)) == [0, 1, 2, 3, 4, 5]


def test_two_sessions_never_write_the_same_number(clients: Clients) -> None:
    numbers = [one for _ in range(2) for part in clients.run(uniques) for one in part]
    assert len(set(numbers)) == len(numbers)


def uniques(session: ClientSession) -> list[int]:
    return [session.unique() for _ in range(100)]


def test_a_client_without_time_for_many_calls_counts_as_begun_when_it_is_done(
    clients: Clients,
) -> None:
    first, *_ = chosen = clients.order(number)
    until(partial(has_begun, first, lambda _client: 0), "the client to be done", 60)
    assert sorted(clients.results(chosen, 60)) == [0, 1, 2, 3, 4, 5]
    assert not has_begun(first, lambda _client: 0)
    assert has_begun(first, lambda _client: 10**6)
