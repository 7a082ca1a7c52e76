"""Faults of a private Redis: its connections are cut, and it is restarted."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from cacheapp import clock
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.run import MARGIN_S, CheckRun
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads.faults import AFTERWARDS_S, IN_THE_MIDDLE, read_all
from cacheapp.cachecheck.workloads.registers import KEYS, one_order, simple_calls
from cacheapp.consistency.history import Operation, OperationKind, Outcome
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

    return [disturbed(run, CUT, run.keys("cut", KEYS), close_all)]


def restarted(run: CheckRun, server: RedisServer) -> list[PropertyFinding]:
    """Kill the server and start it again, empty: entries may be lost, but no old one may return."""

    def restart() -> None:
        server.kill()
        server.start()

    run_evicting = _evicting(run)
    return [disturbed(run_evicting, RESTARTED, run.keys("restart", KEYS), restart)]


def _evicting(run: CheckRun) -> CheckRun:
    """Return the run as one that accepts every miss: the server keeps nothing on disk."""
    changed = CheckRun(**{**run.__dict__, "evicts": True})
    changed.written = run.written
    return changed


def disturbed(
    run: CheckRun,
    name: str,
    keys: Sequence[str],
    disturb: Callable[[], None],
    explained: Callable[[list[Operation]], list[Operation]] = list,
) -> PropertyFinding:
    """Judge calls during which something is done to the server; UNKNOWN unless each key is read afterwards.

    `explained` adds to the history what the server may have done by itself.
    """
    clients = run.crew
    assert isinstance(clients, Clients)  # noqa: S101 (faults are for processes)
    seconds = min(run.seconds, 2.0)
    chosen = clients.order(simple_calls, keys, seconds)
    first = chosen[0].number
    until(lambda: run.journals.lines(first) >= IN_THE_MIDDLE, "a client to make calls", MARGIN_S)
    disturb()
    ended_ns = clock.monotonic_ns()
    clients.results(chosen, seconds + MARGIN_S)
    clients.run(simple_calls, keys, AFTERWARDS_S, within_s=MARGIN_S)
    clients.run(read_all, keys, within_s=MARGIN_S)
    history = run.history()
    found = one_order(name, explained(history), run)
    unanswered = sum(one.outcome is not Outcome.OK for one in history)
    figure = f"{found.figure}, {unanswered} of {len(history)} unanswered"
    unread = set(keys) - _read_since(history, ended_ns)
    if unread and found.verdict is PropertyVerdict.HOLDS:
        silence = f"after the fault no read of {len(unread)} of {len(keys)} keys was answered"
        why = "; ".join(filter(None, [silence, found.why]))
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, figure, why)
    return replace(found, figure=figure)


def _read_since(history: Sequence[Operation], moment_ns: int) -> set[str]:
    """Return the keys of which a read that began after the moment was answered."""
    return {
        one.key
        for one in history
        if one.kind is OperationKind.GET and one.outcome is Outcome.OK and one.call_ns >= moment_ns
    }
