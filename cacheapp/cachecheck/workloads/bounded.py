"""Bounded staleness of a cache with a copy per machine, under faults of everything around it.

One process of each machine writes to keys of its machine, in bursts: an invalidation that is lost does
harm only if no other write follows soon. Faults request a burst at the moment that is dangerous. All
processes read all keys: a few of them often, as what is stored too late harms those, and most of them
rarely, as a read of Redis repairs the copy.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cacheapp.cachecheck.clients import Client, Clients
from cacheapp.cachecheck.journal import Journal, Journals
from cacheapp.cachecheck.run import MARGIN_S, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.site import BOUND_S, Site
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads.faults import end_of_child
from cacheapp.clock import monotonic_s
from cacheapp.consistency.bound import TooOld, too_old, went_back
from cacheapp.consistency.history import Operation, OperationKind, Outcome
from cacheapp.consistency.timeline import lane_name
from cacheapp.processes.waiting import pause, until

BOUND, MACHINE = "bounded staleness", "one machine agrees"
BURST, FORK, STARVE = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
"""Requests to a client in the middle of its calls."""
_BURST = 12
_SILENCE = 2.5  # bounds
_BETWEEN_WRITES_S = 0.004
_BETWEEN_READS_S = 0.002
_DELETES = 5  # one write in so many is a delete
_HOT, _KEYS = 1, 120  # of each machine
HOT_SUFFIX = "-hot"
_ENOUGH = 200  # reads
_BEGUN = 40  # lines of a journal: its process has used the cache


class Traffic:
    """The calls of all machines of a site, which faults disturb. Used by one thread."""

    def __init__(self, site: Site, token: str, seconds: float) -> None:
        self.site = site
        self.rounds = 0
        """How many faults there were before."""
        self._own = {
            site.name(machine): [
                f"{token}-{site.name(machine)}-{number}{HOT_SUFFIX if number < _HOT else ''}"
                for number in range(_KEYS)
            ]
            for machine in site.machines
        }
        self.ends_s = until_s(seconds)
        self._orders: list[tuple[Clients, list[Client]]] = []
        for machine in site.machines:
            self._order(machine)
        self._await_calls()

    def _order(self, machine: Clients) -> None:
        keys = [key for own in self._own.values() for key in own]
        own = self._own[self.site.name(machine)]
        left_s = self.ends_s - monotonic_s()
        chosen = machine.order(write_and_read, own, keys, left_s, self.site.bound_s)
        self._orders.append((machine, chosen))

    def _await_calls(self) -> None:
        """Wait until all processes of the latest orders make calls, and receive requests.

        One that was started late has little time, and may make fewer calls in it.
        """
        for machine, chosen in self._orders[-len(self.site.machines) :]:
            lines = Journals(machine.setup.directory).lines
            for client in chosen:
                until(partial(has_begun, client, lines), "the first calls", MARGIN_S)

    def restart(self, machine: Clients) -> None:
        """Kill all processes of a machine, and start as many."""
        for client in machine.living:
            client.kill()
        machine.kill_parents()
        pause(
            1.5 * self.site.bound_s
        )  # then nothing listens, and the first of the new processes does
        machine.start(machine.processes)
        self._order(machine)
        self._await_calls()

    def request(self, number: signal.Signals, clients: Sequence[Client]) -> None:
        """Send a request to clients."""
        for client in clients:
            client.signal(number)

    def burst(self) -> None:
        """Let the writers of all machines write now."""
        self.request(BURST, [one.living[0] for one in self.site.machines if one.living])

    def results(self) -> list[tuple[int, str]]:
        """Wait for the end of all calls; return what `write_and_read` returned."""
        within_s = max(0.0, self.ends_s - monotonic_s()) + MARGIN_S
        found: list[Any] = []
        for machine, chosen in self._orders:
            found += machine.results(chosen, within_s)
        return found

    def history(self) -> list[Operation]:
        """Return all calls; their processes have the names of their machines."""
        return [
            replace(one, process=f"machine {name}, {lane_name(one.process)}")
            for name, journals in (
                (self.site.name(machine), Journals(machine.setup.directory))
                for machine in self.site.machines
            )
            for one in journals.collect()
        ]


def has_begun(client: Client, lines: Callable[[int], int]) -> bool:
    """Return True if a client makes calls, or has made all for which it had time."""
    return not client.alive or lines(client.number) > _BEGUN or client.has_responded()


def _machine_of(one: Operation) -> str:
    return one.process.partition(",")[0]


# -- in the clients --------------------------------------------------------------------------------


def write_and_read(
    session: ClientSession, own: Sequence[str], keys: Sequence[str], seconds: float, bound_s: float
) -> tuple[int, str]:
    """Read all keys again and again; the first process of a machine also writes to its own keys.

    Return how many reads the copy has served, and what went wrong.
    """
    requests: Counter[int] = Counter()
    for request in (BURST, FORK, STARVE):
        signal.signal(request, lambda received, _frame: requests.update([received]))
    ends_s, wrong = until_s(seconds), ""
    first = True  # a machine under load may need the whole time for the first turn
    while first or monotonic_s() < ends_s:
        first = False
        requests[BURST] = 0
        for number in range(_BURST if session.number == 0 else 0):
            key = own[0] if number % 3 else session.rng.choice(own)
            if session.rng.randrange(_DELETES) == 0:
                session.delete(key)
            else:
                session.set(key, session.unique())
            if number % 2:  # a read at once finds what a lost reply left, and repairs a blind fill
                session.get(key)
            _read(session, keys, _BETWEEN_WRITES_S)
        silent_until_s = until_s(_SILENCE * min(bound_s, BOUND_S))
        while monotonic_s() < silent_until_s and not requests[BURST]:
            _read(session, keys, _BETWEEN_READS_S)
            wrong = _served(session, keys, requests, bound_s) or wrong
    stats = getattr(session.cache, "stats", None)
    return (stats().get("copy_hits", 0) if stats else 0), wrong


def _served(
    session: ClientSession, keys: Sequence[str], requests: Counter[int], bound_s: float
) -> str:
    """Do what was requested; return what went wrong."""
    if requests[STARVE]:
        requests[STARVE] = 0
        _hold_the_interpreter(2 * bound_s)
    if not requests[FORK]:
        return ""
    requests[FORK] = 0
    if child := os.fork():
        _read(session, keys, 2 * bound_s)
        return end_of_child(child, session)
    try:
        journal = Journal(session.directory, f"{session.process}-child")
        session.continue_as(journal)
        _read(session, keys, 2 * bound_s)
        journal.close()
    finally:
        os._exit(0)


def _hold_the_interpreter(seconds: float) -> None:
    """Let no other thread of this process run, as a long call of a C library does."""
    before, ends_s = sys.getswitchinterval(), until_s(seconds)
    sys.setswitchinterval(MARGIN_S)
    try:
        _spin(ends_s)
    finally:
        sys.setswitchinterval(before)


def _spin(ends_s: float) -> None:
    while monotonic_s() < ends_s:
        pass


def _read(session: ClientSession, keys: Sequence[str], seconds: float) -> None:
    ends_s = until_s(seconds)
    hot = [key for key in keys if key.endswith(HOT_SUFFIX)]
    while True:
        session.get(session.rng.choice(hot if session.rng.random() < 0.5 else keys))  # noqa: PLR2004
        if monotonic_s() > ends_s:
            return
        pause(_BETWEEN_READS_S)


# -- the check -------------------------------------------------------------------------------------


def judged(
    history: Sequence[Operation], bound_s: float, *, evicts: bool = False
) -> list[PropertyFinding]:
    """Return whether a history keeps the bound, and whether each machine has one order."""
    reads = sum(one.kind is OperationKind.GET and one.outcome is Outcome.OK for one in history)
    old = too_old(history, int(bound_s * 1e9), evicts=evicts)
    back = went_back(history, _machine_of, evicts=evicts)
    return [
        _finding(BOUND, old, reads, f"older than {bound_s:g} s"),
        _finding(MACHINE, back, reads, "older than what the machine knew"),
    ]


def _finding(name: str, found: Sequence[TooOld], reads: int, what: str) -> PropertyFinding:
    figure = f"{len(found):,} of {reads:,} reads {what}"
    if found:
        oldest = max(found, key=lambda one: one.age_ns)
        age_s = oldest.age_ns / 1e9
        why = f"a read returned what had been overwritten {age_s:.2f} s before it began"
        if name == MACHINE:
            why = f"a read returned what its machine had known to be overwritten for {age_s:.3f} s"
        operations = (*oldest.written[-1:], oldest.newer, oldest.read)
        return PropertyFinding(name, PropertyVerdict.BROKEN, figure, why, operations)
    if reads < _ENOUGH:
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, figure, "too few reads succeeded")
    return PropertyFinding(name, PropertyVerdict.HOLDS, figure)
