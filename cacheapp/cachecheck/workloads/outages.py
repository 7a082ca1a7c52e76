"""Faults of a private Redis: its connections are cut, and it is restarted."""

from collections.abc import Callable

from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.run import MARGIN_S, CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding
from cacheapp.cachecheck.workloads.faults import IN_THE_MIDDLE
from cacheapp.cachecheck.workloads.registers import KEYS, one_order, simple_calls
from cacheapp.consistency.history import Operation, Outcome
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import pause, until

CUT, RESTARTED = "connections cut", "server restarted"
_TIMES = 64
"""A lost write is detected only if the key is read before it is written again: of runs with 8 cuts,
one in three detects a cache that hides lost writes; with 64 cuts, nine of ten do."""


def cut(run: CheckRun, server: RedisServer | PrivateCluster) -> list[PropertyFinding]:
    """Close all connections repeatedly, in the middle of calls."""

    def close_all() -> None:
        for _ in range(_TIMES):
            server.cut_connections()
            pause(min(run.seconds, 2.0) / (2 * _TIMES))

    return [disturbed(run, CUT, close_all)]


def restarted(run: CheckRun, server: RedisServer) -> list[PropertyFinding]:
    """Kill the server and start it again, empty: entries may be lost, but no old one may return."""

    def restart() -> None:
        server.kill()
        server.start()

    run_evicting = _evicting(run)
    return [disturbed(run_evicting, RESTARTED, restart)]


def _evicting(run: CheckRun) -> CheckRun:
    """Return the run as one that accepts every miss: the server keeps nothing on disk."""
    changed = CheckRun(**{**run.__dict__, "evicts": True})
    changed.written = run.written
    return changed


def disturbed(
    run: CheckRun,
    name: str,
    disturb: Callable[[], None],
    with_losses: Callable[[list[Operation]], list[Operation]] = list,
) -> PropertyFinding:
    """Judge calls during which something is done to the server.

    `with_losses` adds to the history what the server may have done by itself.
    """
    clients = run.crew
    assert isinstance(clients, Clients)  # noqa: S101 (faults are for processes)
    keys = run.keys(name.split(maxsplit=1)[0], KEYS)
    seconds = min(run.seconds, 2.0)
    chosen = clients.order(simple_calls, keys, seconds)
    first = chosen[0].number
    until(lambda: run.journals.lines(first) >= IN_THE_MIDDLE, "a client to make calls", MARGIN_S)
    disturb()
    clients.results(chosen, seconds + MARGIN_S)
    history = run.history()
    found = one_order(name, with_losses(history), run)
    answered = [one for one in history if one.outcome is Outcome.OK]
    figure = f"{found.figure}, {_share(history, answered)} unanswered"
    return PropertyFinding(name, found.verdict, figure, found.why, found.operations, found.origins)


def _share(history: list[Operation], answered: list[Operation]) -> str:
    return f"{len(history) - len(answered)} of {len(history)}"
