"""The thread that looks at all keys that are waited for."""

import asyncio
import threading
from collections.abc import Mapping

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.poller import Poller
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import until

DEADLINE_S = 30


class _Store:
    """A store's payloads; a poller calls `changed`."""

    def __init__(self) -> None:
        self.found: dict[str, Payload] = {}
        self.looks: list[set[str]] = []
        self.threads: set[int] = set()
        self.fails = False

    def changed(self, seen: Mapping[str, Payload]) -> list[str]:
        self.looks.append(set(seen))
        self.threads.add(threading.get_ident())
        if self.fails:
            raise StoreUnavailable
        return [key for key, payload in seen.items() if self.found.get(key) != payload]


def test_a_caller_is_woken_when_the_key_changes_and_not_before() -> None:
    store = _Store()
    store.found = {"a": b"lease", "b": b"lease"}
    poller = Poller(store.changed)
    woken = {key: threading.Event() for key in store.found}
    for key, event in woken.items():
        poller.add(key, b"lease", event.set)
    until(lambda: len(store.looks) > 20, "some looks")
    assert not woken["a"].is_set()
    store.found["a"] = b"value"
    assert woken["a"].wait(DEADLINE_S)
    assert not woken["b"].is_set()


def test_one_thread_looks_at_all_keys_together() -> None:
    store = _Store()
    keys = {f"key-{n}" for n in range(20)}
    store.found = dict.fromkeys(keys, b"lease")
    poller = Poller(store.changed)
    for key in keys:
        poller.add(key, b"lease", lambda: None)
    until(lambda: store.looks[-3:] == [keys] * 3, "looks at all keys", DEADLINE_S)
    assert len(store.threads) == 1


def test_a_cancelled_watch_is_not_polled() -> None:
    store = _Store()
    store.found = {"a": b"lease", "b": b"lease"}
    poller = Poller(store.changed)
    end = poller.add("a", b"lease", lambda: None)
    poller.add("b", b"lease", lambda: None)
    end()
    until(lambda: store.looks[-3:] == [{"b"}] * 3, "looks at the other key", DEADLINE_S)


def test_a_failing_store_wakes_all_callers() -> None:
    store = _Store()
    store.found = {"a": b"lease"}
    poller = Poller(store.changed)
    store.fails = True
    poller.wait("a", b"lease", DEADLINE_S)
    store.fails = False
    store.found = {}
    poller.wait("a", b"lease", DEADLINE_S)
    assert len(store.threads) == 1, "the thread continues"


async def test_tasks_wait_without_a_thread_each() -> None:
    store = _Store()
    store.found = {"a": b"lease"}
    poller = Poller(store.changed)
    async with asyncio.timeout(DEADLINE_S):
        tasks = [asyncio.create_task(poller.await_("a", b"lease", DEADLINE_S)) for _ in range(5)]
        await asyncio.to_thread(until, lambda: len(store.looks) > 5, "some looks")
        assert not any(task.done() for task in tasks)
        store.found = {}
        await asyncio.gather(*tasks)
        await poller.await_("b", b"lease", DEADLINE_S)
    assert len(store.threads) == 1


def test_a_wait_ends_after_its_time() -> None:
    store = _Store()
    store.found = {"a": b"lease"}
    Poller(store.changed).wait("a", b"lease", 0.05)
    assert store.found == {"a": b"lease"}
