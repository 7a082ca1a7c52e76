"""`get_or_set` across real processes: one computation, also if a process dies, freezes, raises or writes."""

import os
import signal
from pathlib import Path

import pytest

from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until
from tests.contract import flights
from tests.contract.backends import Entry
from tests.contract.clients import DEADLINE_S, Clients, Running, calls

forked = pytest.mark.parametrize("clients", ["fork"], indirect=True)
"""Starting afresh takes seconds, and shows nothing more than the first test does."""


SHORT_S, LONG_S = 5.0, 100.0
UNTIL_DEATH_S = 0.0  # which a server does not see: there this time ends
ON_A_SERVER_S = 8.0  # a holder that is alive may be late for more than 5 s with a renewal


@pytest.fixture
def lease_s() -> float:
    """The lease time: one that no test comes to, unless it is about what happens then."""
    return LONG_S


@pytest.fixture
def entry(entry: Entry, lease_s: float) -> Entry:
    """The entry of CACHES with a wait that no test reaches, and the lease time of the test."""
    if lease_s == UNTIL_DEATH_S:  # a server cannot know that a process has died
        lease_s = LONG_S if entry["BACKEND"].endswith(("DiskCache", "LMDBCache")) else ON_A_SERVER_S
    options = {**entry.get("OPTIONS", {}), "lease_time": lease_s, "lease_wait": LONG_S}
    return {**entry, "OPTIONS": options}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where factories leave their traces."""
    made = tmp_path / "flights"
    made.mkdir()
    return made


class Since:
    """How much counters have grown since this was made."""

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self._before = cache.stats()

    def reach(self, name: str, amount: int) -> None:
        """Wait until the counter has grown by that much."""
        until(lambda: self.of(name) >= amount, f"{amount} {name}", DEADLINE_S)

    def of(self, name: str) -> int:
        return self._cache.stats()[name] - self._before[name]


def _holder(clients: Clients, directory: Path) -> Running:
    """Start a process that holds the lease, and computes "first" when the test allows it."""
    running = clients.start([calls(flights.fill, directory, "first")])
    until(lambda: flights.runs(directory) == 1, "the holder to compute", DEADLINE_S)
    return running


def _signal(running: Running, number: signal.Signals) -> None:
    for process in running.processes:
        os.kill(process.pid, number)


def test_one_of_32_callers_computes_and_all_get_the_value(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    since = Since(cache)
    running = clients.start([calls(flights.fill, directory, "value")] * 4, threads=8)
    since.reach("lease_waits", 31)
    (directory / "go").touch()
    assert running.results() == ["value"] * 32
    assert flights.runs(directory) == 1
    assert cache.get("key") == "value"


@forked
def test_async_callers_in_several_processes_share_one_computation(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    since = Since(cache)
    running = clients.start([calls(flights.afill, directory, 5)] * 3)
    since.reach("lease_waits", 14)
    (directory / "go").touch()
    assert running.results() == [["value"] * 5] * 3
    assert flights.runs(directory) == 1


@forked
@pytest.mark.parametrize("lease_s", [UNTIL_DEATH_S], ids=["until death"])
def test_a_holder_that_is_killed_is_replaced_by_a_waiter_of_another_process(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    holder = _holder(clients, directory)
    since = Since(cache)
    waiters = clients.start([calls(flights.fill_at_once, directory, "second")] * 2)
    since.reach("lease_waits", 2)
    _signal(holder, signal.SIGKILL)
    assert holder.results() == []
    assert waiters.results() == ["second", "second"]
    assert flights.runs(directory) == 2  # the dead one's, and one of the two
    assert cache.get("key") == "second"


@forked
@pytest.mark.parametrize("lease_s", [SHORT_S], ids=["short lease"])
@pytest.mark.parametrize("next_caller", ["one", "none"])
def test_a_frozen_holder_that_wakes_up_stores_nothing(
    cache: SharedCache, clients: Clients, directory: Path, next_caller: str
) -> None:
    holder = _holder(clients, directory)
    since = Since(cache)
    _signal(holder, signal.SIGSTOP)
    try:
        if next_caller == "one":
            waiter = clients.start([calls(flights.fill_at_once, directory, "second")])
            assert waiter.results() == ["second"]
        else:
            final = cache.make_key("key")
            until(lambda: cache._store.get(final) is None, "the lease to end", DEADLINE_S)  # noqa: SLF001
        (directory / "go").touch()
    finally:
        _signal(holder, signal.SIGCONT)
    assert holder.results() == ["first"]  # its own caller gets it
    assert cache.get("key") == ("second" if next_caller == "one" else None)
    assert since.of("voided_fills") == 1


@forked
@pytest.mark.parametrize("write", flights.WRITES)
def test_a_write_of_another_process_in_mid_factory_voids_the_lease(
    cache: SharedCache, clients: Clients, directory: Path, write: str
) -> None:
    holder = _holder(clients, directory)
    written = "written" if write in {"set", "add"} else "absent"
    assert clients.run(flights.write, write, processes=1) == [written]
    (directory / "go").touch()
    assert holder.results() == ["first"]
    assert cache.get("key", "absent") == written


@forked
def test_nesting_in_opposite_orders_in_two_processes_does_not_deadlock(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    works = [calls(flights.nested, directory, *order) for order in (("a", "b"), ("b", "a"))]
    assert clients.start(works).results() == ["a of b for a", "b of a for b"]


@forked
def test_what_a_factory_raises_stays_in_its_process_and_a_waiter_of_another_tries_next(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    failing = clients.start([calls(flights.fail, directory)])
    until(lambda: flights.runs(directory) == 1, "the holder to compute", DEADLINE_S)
    since = Since(cache)
    waiters = clients.start([calls(flights.fill_at_once, directory, "second")] * 2)
    since.reach("lease_waits", 2)
    (directory / "go").touch()
    assert failing.results() == ["LookupError('broken')"]
    assert waiters.results() == ["second", "second"]
    assert flights.runs(directory) == 2


@forked
def test_a_stale_value_is_served_by_all_processes_while_one_refreshes_it(
    cache: SharedCache, clients: Clients, directory: Path
) -> None:
    cache.get_or_set("key", lambda: "old", 0.05, stale=1000)
    until(lambda: not cache.has_key("key"), "the soft deadline to pass")
    running = clients.start([calls(flights.refresh, directory)] * 4, threads=2)
    # One that has counted its stale value, but not yet tried to refresh it, may do so after another.
    until(lambda: flights.served(directory) == 8, "all to get a stale value", DEADLINE_S)
    (directory / "go").touch()
    assert running.results() == ["old"] * 8
    assert flights.runs(directory) == 1
    assert cache.get("key") == "new"
