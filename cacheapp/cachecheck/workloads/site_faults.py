"""What the machines of a site meet while they write and read: each fault once, again and again."""

import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cacheapp.cachecheck.clients import ClientFailed
from cacheapp.cachecheck.private import is_on_cluster
from cacheapp.cachecheck.run import CheckRun, not_applicable
from cacheapp.cachecheck.site import BOUND_S, Site, site_of
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads.bounded import (
    BOUND,
    FORK,
    HOT_SUFFIX,
    MACHINE,
    STARVE,
    Traffic,
    judged,
)
from cacheapp.clock import monotonic_s
from cacheapp.processes.proxy import Network
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer, ServerFailed
from cacheapp.processes.waiting import pause

Fault = Callable[[Traffic], None]
_Server = TypeVar("_Server", bound=RedisServer)
_LEAST_S, _MOST_S = 2.5, 4.0  # under each fault
_AFTERWARDS_S = 4 * BOUND_S
_BUFFER_BYTES = 32 * 1024
_SOME = 4  # slots that move at a time
_FLOOD = 2000  # keys with long names: more than the buffers of a socket and of Redis


def bounded(site: Site, token: str, fault: str, seconds: float) -> list[PropertyFinding]:
    """Disturb the machines again and again while they write and read; judge what they read."""
    traffic = Traffic(site, token, _SECONDS.get(fault, seconds))
    disturb = (FAULTS | CLUSTER_FAULTS)[fault]
    disturb(traffic)
    pause(_AFTERWARDS_S)  # the copies are served again
    while monotonic_s() < traffic.ends_s - _AFTERWARDS_S / 2:
        traffic.rounds += 1
        disturb(traffic)
        pause(_AFTERWARDS_S)
    results = traffic.results()
    if wrong := "; ".join(sorted({text for _hits, text in results if text})):
        return [PropertyFinding(one, PropertyVerdict.BROKEN, "", wrong) for one in (BOUND, MACHINE)]
    found = judged(traffic.history(), site.bound_s, evicts=fault in EMPTYING)
    if any(hits for hits, _wrong in results):
        return found
    why = "no copy was served"
    return [
        replace(one, verdict=PropertyVerdict.UNKNOWN, why=why)
        if one.verdict is PropertyVerdict.HOLDS
        else one
        for one in found
    ]


# -- the connections for invalidations ---------------------------------------------------------------


def nothing(_traffic: Traffic) -> None:
    """Leave all as it is."""


def lose_connections(traffic: Traffic) -> None:
    """Close the connections that receive invalidations (`CLIENT KILL`), and write."""
    for server in traffic.site.primaries:
        with server.client() as client:
            tracking = (each["id"] for each in client.client_list() if "t" in each["flags"])
            for number in tracking:
                client.client_kill_filter(_id=number)
    traffic.burst()


def overrun_buffers(traffic: Traffic) -> None:
    """Stop the first machine, and change more keys than the buffers of its connection hold."""
    site = traffic.site
    stopped, store = site.machines[0].living, site.store
    server = store.owner(store.slot("flood")) if isinstance(store, PrivateCluster) else store
    with server.client() as client, client.pipeline(transaction=False) as flood:
        client.config_set("client-output-buffer-limit", f"normal {_BUFFER_BYTES} 0 0")
        traffic.request(signal.SIGSTOP, stopped)
        for number in range(_FLOOD):
            flood.set(f"{site.prefix}:1{{flood}}{'x' * 1000}{number}", b"", px=1000)
        flood.execute()
    pause(site.bound_s)
    traffic.request(signal.SIGCONT, stopped)


def delay_invalidations(traffic: Traffic) -> None:
    """Let only the connection of invalidations be late, by less than the bound; then hold it, and write.

    The last reply to a PING is then still on its way, and arrives long after the writes.
    """
    bound_s, proxy = traffic.site.bound_s, traffic.site.proxy
    proxy.set(Network(invalidations_s=0.6 * bound_s))
    pause(1.5 * bound_s)
    proxy.set(Network(invalidations_s=1.9 * bound_s, first_s=0.6 * bound_s))
    traffic.burst()
    pause(2.2 * bound_s)


def lose_replies(traffic: Traffic) -> None:
    """Lose the replies to every other SET of the second machine, with invalidations a little late."""
    bound_s = traffic.site.bound_s
    network = Network(invalidations_s=bound_s / 4, loses=2, lost_after_s=bound_s / 8)
    traffic.site.proxy.set(network)
    traffic.burst()


# -- processes -------------------------------------------------------------------------------------


def stop_processes(traffic: Traffic) -> None:
    """Stop one process of each machine, in turn, for twice the bound: one of them is the listener."""
    stopped = [one.living[traffic.rounds % len(one.living)] for one in traffic.site.machines]
    traffic.request(signal.SIGSTOP, stopped)
    traffic.burst()
    pause(2 * traffic.site.bound_s)
    traffic.request(signal.SIGCONT, stopped)


def starve_processes(traffic: Traffic) -> None:
    """Let one thread of each process hold the interpreter for twice the bound, in turn."""
    starved = [one.living[traffic.rounds % len(one.living)] for one in traffic.site.machines]
    traffic.request(STARVE, starved)
    traffic.burst()
    pause(2 * traffic.site.bound_s)


def fork_processes(traffic: Traffic) -> None:
    """Let all processes fork, with active threads; parents and children continue."""
    traffic.request(FORK, [client for one in traffic.site.machines for client in one.living])
    traffic.burst()
    pause(2 * traffic.site.bound_s)


def kill_processes(traffic: Traffic) -> None:
    """Kill one process of each machine, but not the writer."""
    for machine in traffic.site.machines:
        if len(machine.living) > 1:
            machine.living[-1].kill()
    traffic.burst()


def kill_parents(traffic: Traffic) -> None:
    """Kill the process from which those of the second machine were forked; it was the listener.

    What is written before another process listens does harm only to keys that the copy has, and that
    are not read meanwhile: so the copy is filled before, and many keys are written.
    """
    machine, bound_s = traffic.site.machines[-1], traffic.site.bound_s
    if traffic.rounds:
        traffic.restart(machine)
    pause(4 * bound_s)
    machine.kill_parents()
    for _ in range(2):
        traffic.burst()
        pause(bound_s / 4)


def restart_workers(traffic: Traffic) -> None:
    """Kill all processes of a machine, and start new ones."""
    machines = traffic.site.machines
    traffic.restart(machines[traffic.rounds % len(machines)])


# -- the server ------------------------------------------------------------------------------------


def empty_database(traffic: Traffic) -> None:
    """Remove all keys (`FLUSHDB`)."""
    for server in traffic.site.primaries:
        with server.client() as client:
            client.flushdb()
    traffic.burst()


def exhaust_memory(traffic: Traffic) -> None:
    """Let Redis refuse writes for twice the bound, because its memory is used up."""
    servers = traffic.site.primaries
    for limit in ("1", "0"):
        for server in servers:
            with server.client() as client:
                client.config_set("maxmemory", limit)
        traffic.burst()
        if limit == "1":
            pause(2 * traffic.site.bound_s)


def _in_turn(traffic: Traffic, servers: Sequence[_Server]) -> _Server:
    return servers[traffic.rounds % len(servers)]


def stop_server(traffic: Traffic) -> None:
    """Stop Redis, or one primary in turn, for twice the bound."""
    server = _in_turn(traffic, traffic.site.primaries)
    server.send(signal.SIGSTOP)
    pause(2 * traffic.site.bound_s)
    server.send(signal.SIGCONT)


def restart_server(traffic: Traffic) -> None:
    """Kill Redis, or one primary in turn, and start it again, empty."""
    server, store = _in_turn(traffic, traffic.site.primaries), traffic.site.store
    server.kill()
    server.start()
    if isinstance(store, PrivateCluster):
        store.until_complete()
    traffic.burst()


# -- the cluster -----------------------------------------------------------------------------------


def hand_over(traffic: Traffic) -> None:
    """Let a primary hand over to its replica (`CLUSTER FAILOVER`), each in turn."""
    cluster = traffic.site.cluster
    cluster.fail_over(_in_turn(traffic, cluster.primaries()))
    traffic.burst()


def move_slots(traffic: Traffic) -> None:
    """Move the slots of the keys that are read often, and some others, to other primaries."""
    cluster = traffic.site.cluster
    slots = sorted(cluster.used_slots())
    others = slots[traffic.rounds % _SOME :: max(_SOME, len(slots) // _SOME)]
    for slot in sorted({*others, *cluster.used_slots(f"*{HOT_SUFFIX}*")}):
        primaries, owner = cluster.primaries(), cluster.owner(slot)
        cluster.move(slot, primaries[(primaries.index(owner) + 1) % len(primaries)])
        traffic.burst()


def kill_primary(traffic: Traffic) -> None:
    """Kill a primary, each in turn; its replica, which has all its writes, takes over."""
    cluster = traffic.site.cluster
    primary = _in_turn(traffic, cluster.primaries())
    cluster.hold_writes(primary)
    cluster.kill_primary(primary)
    traffic.burst()
    cluster.revive(primary)


# -- the network -----------------------------------------------------------------------------------


def partition(traffic: Traffic) -> None:
    """Let the proxy forward nothing for twice the bound: connections stay open."""
    proxy = traffic.site.proxy
    proxy.send(signal.SIGSTOP)
    traffic.burst()
    pause(2 * traffic.site.bound_s)
    with contextlib.suppress(ProcessLookupError):
        proxy.send(signal.SIGCONT)


def slow_down_network(traffic: Traffic) -> None:
    """Let all replies be late, from now on."""
    late_s = (0.3 if traffic.rounds % 2 else 0.8) * traffic.site.bound_s
    traffic.site.proxy.set(Network(late_s, late_s))
    traffic.burst()


def unsettle_network(traffic: Traffic) -> None:
    """Slow the network down, and interrupt it for twice the bound."""
    slow_down_network(traffic)
    partition(traffic)


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "connections lost": lose_connections,
    "buffers overrun": overrun_buffers,
    "invalidations late": delay_invalidations,
    "replies lost": lose_replies,
    "processes stopped": stop_processes,
    "processes starved": starve_processes,
    "processes forked": fork_processes,
    "processes killed": kill_processes,
    "parent killed": kill_parents,
    "workers restarted": restart_workers,
    "database emptied": empty_database,
    "memory exhausted": exhaust_memory,
    "server stopped": stop_server,
    "server restarted": restart_server,
    "partition": partition,
    "network slow": slow_down_network,
    "network slow and interrupted": unsettle_network,
}
CLUSTER_FAULTS: dict[str, Fault] = {
    "a primary hands over": hand_over,
    "slots move": move_slots,
    "a primary killed": kill_primary,
}
BOUNDS_S = {"invalidations late": 1.0, "replies lost": 3.0}
"""Of faults that need time between two events."""
_SECONDS = {"invalidations late": 10.0, "parent killed": 8.0, "a primary killed": 8.0}
"""Of faults that take longer."""
EMPTYING = frozenset(["database emptied", "server restarted"])
"""Faults that remove entries: then a miss says nothing."""


def all_faults(run: CheckRun) -> list[PropertyFinding]:
    """Run each fault on a private site; return the worst finding of each property."""
    if run.copied is None:
        why = "the cache has no copies with a bound (OPTIONS['max_staleness'])"
        return not_applicable(BOUND, MACHINE, why=why)
    found: dict[str, list[PropertyFinding]] = {BOUND: [], MACHINE: []}
    for fault in {**FAULTS, **CLUSTER_FAULTS} if is_on_cluster(run.copied) else FAULTS:
        for one in _under(run, run.copied, fault):
            why = one.why if one.verdict is PropertyVerdict.HOLDS else f"{fault}: {one.why}"
            found[one.property].append(replace(one, why=why))
    return [_worst(each) for each in found.values()]


def _under(run: CheckRun, entry: Mapping[str, Any], fault: str) -> list[PropertyFinding]:
    seconds = max(_LEAST_S, min(run.seconds, _MOST_S))
    try:
        with site_of(entry, BOUNDS_S.get(fault, BOUND_S)) as site:
            return bounded(site, run.token, fault, seconds)
    except (ClientFailed, TimeoutError, ServerFailed) as exc:
        why = str(exc).strip().splitlines()[-1]
        unknown = PropertyVerdict.UNKNOWN
        return [PropertyFinding(name, unknown, "", why) for name in (BOUND, MACHINE)]


def _worst(findings: list[PropertyFinding]) -> PropertyFinding:
    for verdict in (PropertyVerdict.BROKEN, PropertyVerdict.UNKNOWN):
        for one in findings:
            if one.verdict is verdict:
                return one
    return replace(
        findings[0], figure=f"{findings[0].figure}, and as well under {len(findings) - 1} faults"
    )
