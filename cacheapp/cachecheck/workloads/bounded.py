"""Bounded staleness of a cache with a copy per machine, under faults of everything around it.

Each *machine* is a group of processes with a copy of its own. One process of each writes to keys of
its machine, in bursts: an invalidation that is lost does harm only if no other write follows soon. All
processes read all keys: a few of them often, as what is stored too late harms those, and most of them
rarely, as a read of Redis repairs the copy.
"""

import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cacheapp.cachecheck.clients import Client, Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import MARGIN_S, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.clock import monotonic_s
from cacheapp.consistency.bound import TooOld, too_old
from cacheapp.consistency.history import Operation, OperationKind, Outcome
from cacheapp.processes.proxy import Proxy
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import pause, until

BOUND = "bounded staleness"
_BURST = 12
_BETWEEN_WRITES_S = 0.004
_BETWEEN_READS_S = 0.002
_DELETES = 5  # one write in so many is a delete
_HOT, _COLD = 2, 120  # keys of each machine
_HOT_SUFFIX = "-hot"
_ENOUGH = 200  # reads
_BEGUN = 40  # lines of a journal: its process has used the cache


@dataclass(frozen=True)
class Site:
    """A Redis, the machines that have copies of it, and what the faults need.

    `proxies`: between some of the machines and Redis; none is in the way of the first machine.
    """

    server: RedisServer
    machines: Sequence[Clients]
    bound_s: float
    proxies: Sequence[Proxy] = field(default=())


Fault = Callable[[Site], None]


def write_and_read(
    session: ClientSession, own: Sequence[str], keys: Sequence[str], seconds: float, bound_s: float
) -> None:
    """Read all keys again and again; the first process of a machine also writes to its own keys."""
    ends_s = until_s(seconds)
    first = True  # a machine under load may need the whole time for the first turn
    while first or monotonic_s() < ends_s:
        first = False
        for number in range(_BURST if session.number == 0 else 0):
            key = own[0] if number % 2 else session.rng.choice(own)
            if session.rng.randrange(_DELETES) == 0:
                session.delete(key)
            else:
                session.set(key, session.unique())
            _read(session, keys, _BETWEEN_WRITES_S)
        _read(session, keys, 2.5 * bound_s)


def _read(session: ClientSession, keys: Sequence[str], seconds: float) -> None:
    ends_s = until_s(seconds)
    hot = [key for key in keys if key.endswith(_HOT_SUFFIX)]
    while True:
        session.get(session.rng.choice(hot if session.rng.random() < 0.5 else keys))  # noqa: PLR2004
        if monotonic_s() > ends_s:
            return
        pause(_BETWEEN_READS_S)


def bounded(
    site: Site, token: str, fault: Fault, seconds: float, *, evicts: bool = False
) -> PropertyFinding:
    """Disturb the machines again and again while they write and read; judge what they read."""
    parts = [
        [
            f"{token}-{index}-{number}{_HOT_SUFFIX if number < _HOT else ''}"
            for number in range(_COLD)
        ]
        for index in range(len(site.machines))
    ]
    keys = [key for part in parts for key in part]
    orders = [
        (machine, machine.order(write_and_read, own, keys, seconds, site.bound_s))
        for machine, own in zip(site.machines, parts, strict=True)
    ]
    journals = [Journals(machine.setup.directory) for machine in site.machines]
    for found, (_machine, chosen) in zip(journals, orders, strict=True):
        number = chosen[0].number
        until(lambda it=found, n=number: it.lines(n) > _BEGUN, "the first calls", MARGIN_S)  # type: ignore[misc]
    ends_s = until_s(seconds - 2 * site.bound_s)
    fault(site)
    while monotonic_s() < ends_s:
        pause(4 * site.bound_s)  # the copies are served again
        fault(site)
    for machine, chosen in orders:
        machine.results(chosen, seconds + MARGIN_S)
    return judged([one for each in journals for one in each.collect()], site.bound_s, evicts=evicts)


def judged(
    history: Sequence[Operation], bound_s: float, *, evicts: bool = False
) -> PropertyFinding:
    """Return whether a history keeps the bound, with the oldest read as the counterexample."""
    found = too_old(history, int(bound_s * 1e9), evicts=evicts)
    reads = sum(one.kind is OperationKind.GET and one.outcome is Outcome.OK for one in history)
    figure = f"{len(found):,} of {reads:,} reads older than {bound_s:g} s"
    if found:
        return _broken(max(found, key=lambda one: one.age_ns), figure)
    if reads < _ENOUGH:
        return PropertyFinding(BOUND, PropertyVerdict.UNKNOWN, figure, "too few reads succeeded")
    return PropertyFinding(BOUND, PropertyVerdict.HOLDS, figure)


def _broken(oldest: TooOld, figure: str) -> PropertyFinding:
    why = f"a read returned what had been overwritten {oldest.age_ns / 1e9:.2f} s before it began"
    operations = (*oldest.written[-1:], oldest.newer, oldest.read)
    return PropertyFinding(BOUND, PropertyVerdict.BROKEN, figure, why, operations)


# -- faults --------------------------------------------------------------------------------------


def nothing(site: Site) -> None:
    """Leave all as it is."""


def lose_connections(site: Site) -> None:
    """Close the connections that receive invalidations, as an overrun of their buffers does."""
    with site.server.client() as client:
        for each in client.client_list():
            if "t" in each["flags"]:
                client.client_kill_filter(_id=each["id"])


def empty_database(site: Site) -> None:
    """Remove all keys."""
    with site.server.client() as client:
        client.flushdb()


def stop_processes(site: Site) -> None:
    """Stop each process but the writers for twice the bound: one of them is the listener."""
    for client in _readers(site):
        client.signal(signal.SIGSTOP)
        pause(2 * site.bound_s)
        client.signal(signal.SIGCONT)


def kill_processes(site: Site) -> None:
    """Kill one process of each machine, the writer last."""
    for machine in site.machines:
        living = machine.living
        if len(living) > 1:
            living[-1].kill()


def stop_server(site: Site) -> None:
    """Stop Redis for twice the bound."""
    site.server.send(signal.SIGSTOP)
    pause(2 * site.bound_s)
    site.server.send(signal.SIGCONT)


def restart_server(site: Site) -> None:
    """Kill Redis and start it again, empty."""
    site.server.kill()
    site.server.start()


def partition(site: Site) -> None:
    """Let the proxies forward nothing for twice the bound: connections stay open."""
    for proxy in site.proxies:
        proxy.send(signal.SIGSTOP)
    pause(2 * site.bound_s)
    for proxy in site.proxies:
        with contextlib.suppress(ProcessLookupError):
            proxy.send(signal.SIGCONT)


def slow_down_network(site: Site) -> None:
    """Let the proxies delay what they forward, from now on."""
    for proxy in site.proxies:
        proxy.slow_down()


def unsettle_network(site: Site) -> None:
    """Slow the network down, and interrupt it for twice the bound."""
    slow_down_network(site)
    partition(site)


def _readers(site: Site) -> list[Client]:
    return [client for machine in site.machines for client in machine.living[1:]]


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "connections lost": lose_connections,
    "database emptied": empty_database,
    "processes stopped": stop_processes,
    "processes killed": kill_processes,
    "server stopped": stop_server,
    "server restarted": restart_server,
    "partition": partition,
    "network slow": slow_down_network,
    "network slow and interrupted": unsettle_network,
}
EMPTYING = frozenset(["database emptied", "server restarted"])
"""Faults that remove entries: then a miss says nothing."""
