"""A process that could not start a thread once works as any other as soon as it can."""

import pytest

from cacheapp.backends.core.shared import SharedCache
from tests.contract import thread_work
from tests.contract.backends import Entry
from tests.contract.clients import Clients

# No thread runs in it.
pytestmark = pytest.mark.parametrize("clients", ["forkserver"], indirect=True)


@pytest.fixture
def entry(entry: Entry) -> Entry:
    return {**entry, "OPTIONS": {**entry.get("OPTIONS", {}), "lease_time": thread_work.LEASE_S}}


@pytest.mark.usefixtures("cache")
def test_leases_are_renewed_after_a_failed_start(clients: Clients) -> None:
    assert clients.run(thread_work.compute_without_renewer, processes=1) == [1]


@pytest.mark.usefixtures("cache")
def test_a_caller_that_cannot_wait_computes_and_later_ones_wait(clients: Clients) -> None:
    assert clients.run(thread_work.wait_without_poller, processes=1) == [(8, 7)]


@pytest.mark.usefixtures("cache")
def test_a_stale_value_is_served_until_it_can_be_refreshed(clients: Clients) -> None:
    assert clients.run(thread_work.refresh_without_thread, processes=1) == ["old"]


def test_a_lock_that_no_thread_could_renew_is_not_acquired(
    cache: SharedCache, clients: Clients
) -> None:
    (during,) = clients.run(thread_work.lock_without_renewer, processes=1)
    if cache._store.detects_dead_holders:  # noqa: SLF001 (nothing has to be renewed)
        assert during == "held"
    else:
        assert "was not acquired: the system allows no thread that would renew it" in during
