"""Examine one alias: run all workloads, one after the other, and remove their keys in any case."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.adapters.base import ASYNC, TIMEOUT, abilities
from cacheapp.cachecheck.adapters.subject import about
from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import ClientFailed, Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun, StoreFailed, lacks, remove
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.site import copied
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads import (
    abandoned,
    cluster_faults,
    counting,
    deadlines,
    faults,
    fills,
    locking,
    outages,
    registers,
    site_faults,
    values,
    versions,
)
from cacheapp.cachecheck.workloads.bounded import BOUND, MACHINE
from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer

logger = logging.getLogger(__name__)
Workload = Callable[[CheckRun], list[PropertyFinding]]

SYNC: dict[str, Workload] = {
    "registers": registers.registers,
    "counters": counting.counters,
    "add": counting.winners,
    "get_or_set": fills.cold_keys,
    "stale_fill": fills.stale_fills,
    "expiry": deadlines.deadlines,
    "many": values.many,
    "incr_version": versions.versions,
    "values": values.values,
    "locks": locking.locks,
}
PROCESSES: dict[str, Workload] = {
    "stop": faults.stopped,
    "cold": faults.cold,
    "kill": faults.killed,
    "abandon": abandoned.abandoned,
    "fork": faults.forked,
    "clear": faults.cleared,
    "bounded": site_faults.all_faults,
}
CLUSTER: dict[str, Callable[..., list[PropertyFinding]]] = {
    "handover": cluster_faults.handover,
    "slots": cluster_faults.slots_move,
    "failover": cluster_faults.primary_killed,
}
PROPERTIES: dict[str, tuple[str, ...]] = {
    "registers": (registers.ORDER, registers.OWN, registers.FORWARD),
    "counters": (counting.SUMS,),
    "add": (counting.WINNER,),
    "get_or_set": (fills.ONCE,),
    "stale_fill": (fills.FRESH,),
    "expiry": (deadlines.EXPIRY, deadlines.TOUCH, deadlines.KEPT),
    "many": (values.MANY,),
    "incr_version": (versions.MOVE,),
    "values": (values.WHOLE,),
    "locks": (locking.EXCLUSIVE, locking.FENCED),
    "stop": (faults.STOPPED,),
    "cold": (faults.COLD,),
    "kill": (faults.KILLED,),
    "abandon": (abandoned.ABANDONED,),
    "fork": (faults.FORKED,),
    "clear": (faults.CLEARED,),
    "bounded": (BOUND, MACHINE),
    "cut": (outages.CUT,),
    "restart": (outages.RESTARTED,),
    "handover": (cluster_faults.HANDOVER,),
    "slots": (cluster_faults.SLOTS_MOVE,),
    "failover": (cluster_faults.PRIMARY_KILLED,),
}
NEEDS: dict[str, tuple[str, ...]] = {
    "counters": ("incr",),
    "add": ("add",),
    "get_or_set": ("get_or_set",),
    "stale_fill": ("get_or_set", "delete"),
    "expiry": (TIMEOUT,),
    "many": ("get_many", "set_many"),
    "incr_version": ("incr_version",),
    "locks": ("lock",),
    "cold": ("add",),
    "abandon": ("get_or_set",),
    "clear": ("clear",),
    "bounded": ("delete",),
}
"""What a workload cannot do without, beside `get` and `set`."""
OVER_HTTP = ("registers", "counters", "add", "expiry")
OUTAGES = ("cut", "restart", *CLUSTER)
ASYNC_SUFFIX = " (async)"
NAMES = (*SYNC, *(f"a{name}" for name in SYNC), *PROCESSES, *OUTAGES)


@dataclass(frozen=True)
class CheckPlan:
    """The workloads to run, and their size."""

    processes: int = 4
    threads: int = 2
    fork: bool = False
    seconds: float = 5.0
    seed: int = 0
    evicts: bool = False
    max_bytes: int = 8 * 1024 * 1024
    private: bool = False
    only: tuple[str, ...] = NAMES


class Examination:
    """One alias under examination; `findings` grows, so that an interrupted one can be reported."""

    def __init__(
        self,
        alias: str,
        backend: str,
        plan: CheckPlan,
        overrides: dict[str, Any] | None = None,
        server: RedisServer | PrivateCluster | None = None,
        subject: str = "",
    ) -> None:
        self.alias = alias
        self.backend = backend
        self.plan = plan
        self.findings: list[PropertyFinding] = []
        self._overrides = overrides or {}
        self._server = server
        self._subject = subject
        self.versions: dict[str, str] = {}
        self._rates: dict[bool, float] = {}
        self._abilities: dict[bool, frozenset[str]] = {}
        self._began_s = clock.monotonic_s()

    @property
    def report(self) -> AliasReport:
        """The findings so far."""
        spent_s = clock.monotonic_s() - self._began_s
        findings = tuple(self.findings)
        rate = max(self._rates.values(), default=0.0)
        return AliasReport(
            self.alias, self.backend, findings, spent_s, round(rate), dict(self.versions)
        )

    def workloads(self) -> Iterator[tuple[str, Workload, bool]]:
        """Yield each workload: its name, its function, and whether it uses the async methods."""
        for name, workload in SYNC.items():
            yield name, workload, False
        for name, workload in SYNC.items() if not self._subject else ():
            yield f"a{name}", workload, True
        for name, workload in PROCESSES.items():
            yield name, workload, False
        server = self._server
        if isinstance(server, PrivateCluster):
            yield "cut", lambda run: outages.cut(run, server), False
            for name, fault in CLUSTER.items():
                yield name, partial(fault, cluster=server), False
        elif server is not None:
            yield "cut", lambda run: outages.cut(run, server), False
            yield "restart", lambda run: outages.restarted(run, server), False

    def chosen(self) -> list[tuple[str, Workload, bool]]:
        """Return the workloads in the plan."""
        return [one for one in self.workloads() if one[0] in self.plan.only]

    def turns(self) -> Iterator[tuple[str, Workload, bool]]:
        """Yield what to run, one after the other; it may depend on the findings so far."""
        yield from self.chosen()

    def run(self, began: Callable[[str], None] = lambda _name: None) -> AliasReport:
        """Run the workloads; `began(name)` is called before each.

        Raises `StoreFailed` at once if the store cannot be used.
        """
        self._began_s = clock.monotonic_s()
        with tempfile.TemporaryDirectory(prefix="cachecheck-") as directory:
            setup = Setup(
                self.alias,
                self._overrides,
                self.plan.threads,
                self.plan.seed,
                Path(directory),
                self._subject,
            )
            run = self._new_run(setup)
            self._rates = run.calls_per_s
            try:
                self._require_store(run)
                self._describe(run)
                for name, workload, use_async in self.turns():
                    began(name)
                    self.findings += self._one(run, name, workload, use_async=use_async)
            finally:
                self._stop(run)
                if run.written:
                    self._remove_late(setup, run.written)
        return self.report

    def _new_run(self, setup: Setup) -> CheckRun:
        plan = self.plan
        crew = Clients(setup, plan.processes, fork=plan.fork)
        return CheckRun(
            crew,
            Journals(setup.directory),
            f"cachecheck-{token_hex(6)}",
            plan.seconds,
            plan.evicts,
            plan.max_bytes,
            plan.private,
        )

    def _require_store(self, run: CheckRun) -> None:
        clients = run.crew
        assert isinstance(clients, Clients)  # noqa: S101
        try:
            clients.start(self.plan.processes)
            run.require_store(self.alias)
        except ClientFailed as exc:
            raise StoreFailed(self.alias, _last_line(str(exc))) from exc
        except EOFError as exc:
            raise StoreFailed(self.alias, "a client process ended while it started") from exc

    def _describe(self, run: CheckRun) -> None:
        """Find out what the subject is and has; one with an event loop is used by one thread."""
        clients = run.crew
        assert isinstance(clients, Clients)  # noqa: S101
        kind, self.versions, has, its_async, run.copied = clients.run(
            described, to=clients.living[:1], threads=1
        )[0]
        if self._subject:
            self.backend = kind
        if ASYNC in has:
            clients.setup = replace(clients.setup, threads=1)
        self._abilities = {False: has, True: its_async}

    def _one(
        self, run: CheckRun, name: str, workload: Workload, *, use_async: bool
    ) -> list[PropertyFinding]:
        """Run one workload; if a client fails, the verdict is UNKNOWN and the clients are replaced."""
        clients = run.crew
        assert isinstance(clients, Clients)  # noqa: S101
        run.use_async, run.abilities = use_async, self._abilities[use_async]
        if missing := self._missing(run, name[1:] if use_async else name):
            names = PROPERTIES[name[1:] if use_async else name]
            return [self._named(lacks(run, each, *missing), use_async=use_async) for each in names]
        try:
            if len(clients.living) < self.plan.processes:
                clients.start(self.plan.processes - len(clients.living))
            found = workload(run)
            if name == "fork":  # what a child has read from a shared connection, its parent misses
                self._stop(run)
                run.crew = clients = Clients(
                    clients.setup, self.plan.processes, fork=self.plan.fork
                )
                clients.start(self.plan.processes)
            if not any(clients.run(remove, sorted(run.written), within_s=30.0)):
                run.written.clear()
        except (ClientFailed, TimeoutError) as exc:
            logger.debug("workload %s failed", name, exc_info=True)
            why = _last_line(str(exc))
            names = PROPERTIES[name[1:] if use_async else name]
            found = [PropertyFinding(each, PropertyVerdict.UNKNOWN, "", why) for each in names]
            self._stop(run)
            run.crew = Clients(clients.setup, self.plan.processes, fork=self.plan.fork)
        run.history()  # discard the calls of a failure and of the removal
        return [self._named(one, use_async=use_async) for one in found]

    def _named(self, finding: PropertyFinding, *, use_async: bool) -> PropertyFinding:
        suffix = ASYNC_SUFFIX if use_async else ""
        return replace(finding, property=finding.property + suffix)

    def _missing(self, run: CheckRun, name: str) -> list[str]:
        """Return what the workload needs and the subject does not have."""
        needed = ("get", "set", *NEEDS.get(name, ()))
        missing = [one for one in needed if one not in run.abilities]
        if run.use_async:
            missing = [f"a{one}" for one in missing if one != "lock"]
        if name == "fork" and ASYNC in run.abilities:
            missing = ["event loop that survives a fork"]
        return missing

    def _stop(self, run: CheckRun) -> None:
        if isinstance(run.crew, Clients):
            run.crew.stop()

    def _remove_late(self, setup: Setup, keys: set[str]) -> None:
        """Remove the keys of an interrupted or failed workload, with a new client."""
        try:
            with Clients(replace(setup, threads=1), 1) as clients:
                wrong = "; ".join(filter(None, clients.run(remove, sorted(keys), within_s=30.0)))
        except (ClientFailed, EOFError) as exc:
            wrong = str(exc)
        if wrong:
            logger.warning(
                "alias %s: %d keys named %s… could not be removed (%s); they expire within 5 minutes",
                self.alias,
                len(keys),
                "-".join(min(keys).split("-")[:2]),
                wrong,
                extra={"event": "cachecheck_left_keys"},
            )


def described(
    session: ClientSession,
) -> tuple[str, dict[str, str], frozenset[str], frozenset[str], dict[str, Any] | None]:
    """Return the class of the subject, its version, its methods (also the asynchronous ones), its copies."""
    cache = session.cache
    kind, versions = about(cache)
    return kind, versions, session.abilities, abilities(cache, use_async=True), copied(cache)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[:1] + lines[-1:]) if len(lines) > 1 else text
