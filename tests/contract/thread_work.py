"""What clients do while their process may start no thread, and afterwards."""

import contextlib
import threading
from collections.abc import Iterator
from unittest import mock

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import until
from tests.contract.renewals import renewals

DEADLINE_S = 60
LEASE_S = 9.0  # renewed every 3 s


@contextlib.contextmanager
def no_thread() -> Iterator[None]:
    """Refuse each new thread of this process, as a limit on pids does."""
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no new thread")):
        yield


def compute_without_renewer(cache: SharedCache) -> int:
    """Return how often a factory whose lease is renewed ran, after a failed start of the renewer."""
    with no_thread():
        assert cache.get_or_set("during", lambda: 1) == 1
        assert cache.get("during") == 1
    runs = []

    def slow() -> int:
        runs.append(1)
        until(lambda: renewed, "the lease to be renewed", DEADLINE_S)
        return len(runs)

    threads = [
        threading.Thread(target=lambda: cache.get_or_set("slow", slow), daemon=True)
        for _ in range(3)
    ]
    with renewals(cache) as renewed:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    return len(runs)


def wait_without_poller(cache: SharedCache) -> tuple[int, int]:
    """Return what a second caller gets while no thread can watch the key, and afterwards."""
    release = threading.Event()
    holding = threading.Event()

    def held() -> int:
        holding.set()
        assert release.wait(DEADLINE_S)
        return 7

    first = threading.Thread(target=lambda: cache.get_or_set("key", held), daemon=True)
    first.start()
    assert holding.wait(DEADLINE_S)
    with no_thread():
        during = cache.get_or_set("key", lambda: 8)
    waits = cache.stats()["lease_waits"]
    found: list[int] = []
    second = threading.Thread(
        target=lambda: found.append(cache.get_or_set("key", lambda: 9)), daemon=True
    )
    second.start()
    until(lambda: cache.stats()["lease_waits"] > waits, "the second caller to wait", DEADLINE_S)
    release.set()
    first.join(DEADLINE_S)
    second.join(DEADLINE_S)
    return during, found[0]


def refresh_without_thread(cache: SharedCache) -> str:
    """Return what is served while a stale value cannot be refreshed; wait for its refresh."""
    cache.set("key", "old", 0.01, stale=600)
    until(lambda: cache.get("key") is None, "the deadline", DEADLINE_S)

    def read() -> str:
        found: str = cache.get_or_set("key", lambda: "new", 100, stale=600)
        return found

    with no_thread():
        during = {read(), read()}
    until(lambda: read() == "new", "the refresh", DEADLINE_S)
    return during.pop() if len(during) == 1 else "both"


def lock_without_renewer(cache: SharedCache) -> str:
    """Return how a lock without a timeout is acquired while no thread could renew it."""
    with no_thread():
        try:
            with cache.lock("lock"):
                during = "held"
        except StoreUnavailable as exc:
            during = str(exc)
        assert cache.lock("lock", timeout=100).acquire(blocking=False)
    with cache.lock("other"):
        return during
