"""Faults of clients: one is stopped, killed or forked, or all are new."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cacheapp import clock
from cacheapp.cachecheck.clients import Client, Clients
from cacheapp.cachecheck.journal import Journal
from cacheapp.cachecheck.run import MARGIN_S, CheckRun, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict, plain, with_proof
from cacheapp.cachecheck.workloads.registers import (
    CALLS,
    ENOUGH,
    KEYS,
    LEAST,
    one_call,
    one_order,
    simple_calls,
)
from cacheapp.consistency.history import Operation, OperationKind, Outcome
from cacheapp.consistency.judge import judge
from cacheapp.processes.waiting import pause, until

AFTERWARDS_S = 0.3
IN_THE_MIDDLE = 3 * ENOUGH
"""Lines of a client's journal, two of each call: enough for a judgement if no later one is answered."""
_FORK_WITHIN_S = 20.0
WARM_ROUNDS = 5
_ORDER_S = 0.04  # an order is for a moment 30 ms later

STOPPED, KILLED, FORKED = (
    "a client stopped (SIGSTOP)",
    "a client killed (SIGKILL)",
    "a client that forks",
)
COLD = "cold start of all at once"


def _clients(run: CheckRun) -> Clients:
    assert isinstance(run.crew, Clients)  # noqa: S101 (faults are for processes)
    return run.crew


# -- stopped -------------------------------------------------------------------------------------


def warm(session: ClientSession, key: str) -> None:
    """Read a key a few times, so that a near cache holds a copy."""
    for _ in range(5):
        session.get(key)


def write_one(session: ClientSession, key: str) -> None:
    """Write the key."""
    session.set(key, session.unique())


def stopped(run: CheckRun) -> list[PropertyFinding]:
    """Stop a client that may hold a copy, overwrite the key, and continue the client."""
    clients = _clients(run)
    (key,) = run.keys("stopped", 1)
    sleeper, writer = clients.living[0], clients.living[-1]
    for _ in range(WARM_ROUNDS):
        clients.run(write_one, key, to=[writer], threads=1)
        clients.run(warm, key, to=[sleeper], threads=1)
        sleeper.signal(signal.SIGSTOP)
        try:
            until(lambda: _state(sleeper.pid) == "T", "the client to stop", MARGIN_S)
            clients.run(write_one, key, to=[writer], threads=1)
            reading = clients.order(warm, key, to=[sleeper], threads=1)
            pause(
                _ORDER_S
            )  # so that it reads at once when it wakes, before any thread of its own runs
        finally:
            sleeper.signal(signal.SIGCONT)
        clients.results(reading, MARGIN_S)
    return [one_order(STOPPED, run.history(), run)]


def _state(pid: int) -> str:
    """Return the state letter of a process in /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- killed --------------------------------------------------------------------------------------


def killed(run: CheckRun) -> list[PropertyFinding]:
    """Kill one client in the middle of its calls; the others continue, and a new one starts."""
    clients = _clients(run)
    keys = run.keys("killed", KEYS)
    seconds = min(run.seconds, 2.0)
    chosen = clients.order(simple_calls, keys, seconds)
    victim = clients.living[0]
    until(
        lambda: run.journals.lines(victim.number) >= IN_THE_MIDDLE,
        "a client to make calls",
        MARGIN_S,
    )
    killed_ns = clock.monotonic_ns()  # taken first: the kill may fail a call at once
    victim.kill()
    clients.results(chosen, seconds + MARGIN_S)
    clients.start(1)
    clients.run(simple_calls, keys, AFTERWARDS_S)
    history = run.history()
    slowest = f"{_slowest_s(history) * 1000:.0f} ms the longest call"
    if (first_error := run.first_error()) and not _failed_before(history, killed_ns):
        why = f"after a client was killed, calls of other clients failed: {first_error}"
        return [PropertyFinding(KILLED, PropertyVerdict.BROKEN, slowest, why)]
    found = one_order(KILLED, history, run)
    return [replace(found, figure=f"{found.figure}, {slowest}")]


def _failed_before(history: Sequence[Operation], moment_ns: int) -> bool:
    """Return whether calls failed before the moment: then the kill is not the cause."""
    return any(
        one.outcome is not Outcome.OK and one.return_ns is not None and one.return_ns < moment_ns
        for one in history
    )


def read_all(session: ClientSession, keys: Sequence[str]) -> None:
    """Read every key."""
    for key in keys:
        session.get(key)


def _slowest_s(history: Sequence[Operation]) -> float:
    return max(((one.return_ns or one.call_ns) - one.call_ns for one in history), default=0) / 1e9


# -- forked --------------------------------------------------------------------------------------


def calls_and_forks(session: ClientSession, keys: Sequence[str], seconds: float) -> str:
    """Make calls; each session forks in the middle, and the child makes calls too."""
    deadline = until_s(seconds)
    child = 0
    for number in range(CALLS):
        if number >= LEAST and clock.monotonic_s() > deadline:
            break
        if number == 20:  # noqa: PLR2004 (in the middle)
            child = os.fork()
            if child == 0:
                _as_child(session, keys)
        one_call(session, session.rng.choice(keys))
    return end_of_child(child, session) if child else ""


def _as_child(session: ClientSession, keys: Sequence[str]) -> None:
    """Make calls with the cache that the parent had open, and exit."""
    try:
        journal = Journal(session.directory, f"{session.process}-child")
        session.continue_as(journal)
        for _ in range(30):
            one_call(session, session.rng.choice(keys))
        journal.close()
    finally:
        os._exit(0)


def end_of_child(child: int, session: ClientSession) -> str:
    """Wait for the child; return its failure, if any. One that makes calls does not hang."""
    deadline, made = until_s(_FORK_WITHIN_S), 0
    while clock.monotonic_s() < deadline:
        paths = session.directory.glob(f"{session.process}-child-*.journal")
        if (now := sum(path.stat().st_size for path in paths)) > made:
            deadline, made = until_s(_FORK_WITHIN_S), now
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return f"a forked child died of signal {os.WTERMSIG(status)}" if status else ""
        pause(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"a forked child hung for {_FORK_WITHIN_S:g} s in a call of the cache"


def forked(run: CheckRun) -> list[PropertyFinding]:
    """Fork every client in the middle of its calls, while its threads run."""
    keys = run.keys("forked", KEYS)
    seconds = min(run.seconds, 2.0)
    wrong = [error for error in run.work(calls_and_forks, keys, seconds) if error]
    order = one_order(FORKED, run.history(), run)
    if not wrong:
        return [order]
    return [plain(FORKED, sorted(set(wrong)), f"{len(wrong)} children")]


# -- cold ----------------------------------------------------------------------------------------


def first_calls(session: ClientSession, key: str, counter: str) -> None:
    """Make the first calls of a process."""
    session.add(key, session.unique())
    if session.can("incr"):
        session.add(counter, 0)
        session.incr(counter)
    session.get(key)


def cold(run: CheckRun) -> list[PropertyFinding]:
    """Start several processes that make their first calls at the same moment."""
    clients = _clients(run)
    key, counter = run.keys("first", 2)
    count = max(2, len(clients.living))
    fresh: list[Client] = clients.start(count)
    clients.run(first_calls, key, counter, to=fresh)
    clients.run(read_all, [key, counter], to=fresh)
    for client in fresh:
        clients.dismiss(client)
    history = run.history()
    judged = judge(history, evicts=run.evicts)
    failed = sum(one.outcome is not Outcome.OK for one in history)
    won = sum(
        one.kind is OperationKind.ADD and one.key == key and one.result is True for one in history
    )
    wrong = [] if not judged.illegal else ["the processes do not agree"]
    adds = sum(one.kind is OperationKind.ADD and one.key == key for one in history)
    figure = f"{won} of {adds} won, {failed} calls failed"
    finding = plain(COLD, wrong, figure, unanswered=run.first_error() if failed else "")
    return [with_proof(finding, judged.counterexample)]


# -- clear: only of a private store ----------------------------------------------------------------

CLEARED = "clear removes what was there"


def write_own(session: ClientSession, keys: Sequence[str]) -> None:
    """Write every key."""
    for key in keys:
        session.set(key, session.unique())


def clear(session: ClientSession) -> str:
    """Let one session clear the cache."""
    if session.number:
        return ""
    try:
        session.cache.clear()
    except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
        return f"{type(exc).__name__}: {exc}"[:200]
    return ""


def cleared(run: CheckRun) -> list[PropertyFinding]:
    """Write, clear, and read from every session. Only with a private store."""
    if not run.private:
        why = "only with --private: clear() might remove entries of other programs"
        return [PropertyFinding(CLEARED, PropertyVerdict.NOT_APPLICABLE, "", why)]
    keys = run.keys("cleared", 4)
    run.work(write_own, keys)
    raised = next((error for error in run.work(clear) if error), "")
    run.history()
    run.work(read_all, keys)
    reads = run.history()
    left = sum(isinstance(one.result, int) for one in reads)
    wrong = [f"{left} of {len(reads)} reads found a value from before clear()"] if left else []
    figure = f"{left} of {len(reads)} reads"
    return [plain(CLEARED, [] if raised else wrong, figure, unanswered=raised or run.first_error())]
