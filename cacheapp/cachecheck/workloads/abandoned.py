"""`get_or_set` whose computing client is killed: its lease must not block the others for long."""

import os
import signal

from cacheapp import clock
from cacheapp.cachecheck.clients import ClientFailed, Clients
from cacheapp.cachecheck.run import MARGIN_S, CheckRun
from cacheapp.cachecheck.session import TIMEOUT_S, ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict, plain
from cacheapp.processes.waiting import pause

WITHIN_S = 20.0
"""How long the others may wait: a lease without a sign of life of its holder should end before."""
_WAITERS_COME_S = 0.1

ABANDONED = "a killed computation blocks nobody"


def die_computing(session: ClientSession, key: str) -> None:
    """Begin to compute the value, let the others come, and be killed."""

    def factory() -> int:
        session.signal_event(f"{key}-computing")
        pause(_WAITERS_COME_S)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    session.cache.get_or_set(key, factory, TIMEOUT_S)


def compute(session: ClientSession, key: str) -> tuple[float, str]:
    """Get the value that another one is computing; return the seconds it took, and the error."""
    if not session.await_event(f"{key}-computing", MARGIN_S):
        return 0.0, "the factory was not called"
    began_s = clock.monotonic_s()
    try:
        session.cache.get_or_set(key, session.unique, TIMEOUT_S)
    except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
        return 0.0, f"{type(exc).__name__}: {exc}"[:200]
    return clock.monotonic_s() - began_s, ""


def abandoned(run: CheckRun) -> list[PropertyFinding]:
    """Kill the client that computes a value, while all others wait for it."""
    clients = run.crew
    assert isinstance(clients, Clients)  # noqa: S101 (faults are for processes)
    (key,) = run.keys("abandoned", 1)
    victim, *others = clients.living
    dying = clients.order(die_computing, key, to=[victim], threads=1)
    waiting = clients.order(compute, key, to=others, threads=1)
    try:
        clients.results(dying, MARGIN_S)
    except ClientFailed:
        pass  # it was killed
    else:
        return [PropertyFinding(ABANDONED, PropertyVerdict.UNKNOWN, "", "no factory was called")]
    try:
        seen = clients.results(waiting, WITHIN_S)
    except ClientFailed as exc:
        if "did not answer in time" not in str(exc):
            raise
        why = (
            f"{WITHIN_S:g} s after the death of the computing client the others still waited for it"
        )
        return [PropertyFinding(ABANDONED, PropertyVerdict.BROKEN, "", why)]
    errors = [error for _, error in seen if error]
    longest_ms = max((spent_s for spent_s, _ in seen), default=0.0) * 1000
    figure = f"{longest_ms:.0f} ms the longest wait"
    return [plain(ABANDONED, [], figure, unanswered="; ".join(errors[:1]))]
