"""Leases, waiting and locks of RedisCache: what only a real Redis can show."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cacheapp import clock
from cacheapp.backends import RedisCache
from cacheapp.backends.core import lease_format
from cacheapp.backends.local.process_identity import HOLDER_BYTES
from cacheapp.errors import LockLost, OutcomeUnknown, StoreFull, StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.redis.parts import Wire, ours, raw, sent

DEADLINE_S = 60
DOWN = (StoreUnavailable, OutcomeUnknown)
READS = ("cmdstat_get", "cmdstat_mget")
LONG: dict[str, Any] = {"lease_time": 1000.0, "lease_wait": 1000.0}  # no test waits for so long


@pytest.fixture
def wire(own_redis: RedisServer) -> Iterator[Wire]:
    with Wire(own_redis) as wire:
        yield wire


class Calls:
    """Calls in separate threads, and what each returned or raised."""

    def __init__(self, *works: Callable[[], Any]) -> None:
        self._outcomes: list[Any] = [None] * len(works)
        self._threads = [
            threading.Thread(target=self._run, args=(index, work), daemon=True)
            for index, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, index: int, work: Callable[[], Any]) -> None:
        try:
            self._outcomes[index] = work()
        except Exception as exc:  # noqa: BLE001 (the test looks at it)
            self._outcomes[index] = exc

    def outcomes(self) -> list[Any]:
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        return self._outcomes


class Held:
    """Leases of other callers on keys, which compute until the test releases them."""

    def __init__(self, cache: RedisCache, *keys: str) -> None:
        self._go_on = threading.Event()
        begun = threading.Barrier(len(keys) + 1)

        def compute(key: str) -> str:
            begun.wait(DEADLINE_S)
            assert self._go_on.wait(DEADLINE_S)
            return f"value of {key}"

        def hold(key: str) -> Callable[[], Any]:
            return lambda: cache.get_or_set(key, lambda: compute(key), 100)

        self._calls = Calls(*map(hold, keys))
        begun.wait(DEADLINE_S)

    def release(self) -> list[Any]:
        self._go_on.set()
        return self._calls.outcomes()


def waiting(cache: RedisCache, *keys: str) -> Calls:
    """Start a caller for each key; return when all wait."""
    before = cache.stats()["lease_waits"]
    calls = Calls(*(lambda key=key: cache.get_or_set(key, lambda: "own", 100) for key in keys))
    until(lambda: cache.stats()["lease_waits"] - before == len(keys), "the callers to wait")
    return calls


def subscribed(server: RedisServer, count: int = 1) -> None:
    """Wait until this many channels have subscribers."""
    with raw(server) as client:
        until(lambda: len(client.pubsub_channels()) == count, f"{count} subscriptions")


# -- woken by the server -------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fill", "failure", "delete", "add", "delete_many"])
def test_the_end_of_a_lease_wakes_the_waiters(own_redis: RedisServer, end: str) -> None:
    cache = ours(own_redis.url, **LONG)
    store = cache._store  # noqa: SLF001
    key = cache.make_key("key")
    lease = store.new_lease()
    assert store.lease(key, lease, 100) is None
    ends: dict[str, Callable[[], Any]] = {
        "fill": lambda: store.fill(key, lease, b"\xa0 a value", 100),
        "failure": lambda: store.discard(key, lease),
        "delete": lambda: store.delete(key),
        "add": lambda: store.add(key, b"\xa0 a value", 100),
        "delete_many": lambda: store.delete_many([key]),
    }
    with raw(own_redis) as client, client.pubsub() as listening:
        listening.subscribe(f"cacheapp:lease:{key}")
        until(lambda: listening.get_message(timeout=0.1), "the subscription")
        assert store.fill(key, lease, lease, 100) is True  # a renewal ends nothing
        ends[end]()
        heard = until(lambda: listening.get_message(timeout=0.1), "the message")
        assert (heard["type"], heard["data"]) == ("message", b"")
        assert listening.get_message(timeout=0.1) is None


def test_a_waiter_looks_once_and_is_then_woken(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However late Redis confirms the subscription, and with no poll that could end the wait.
    monkeypatch.setattr("cacheapp.backends.redis.store._POLL_EVERY_S", DEADLINE_S)
    cache = ours(own_redis.url, **LONG)
    cache.get_or_set("other", lambda: "makes Redis know the scripts")
    held = Held(cache, "key")
    waiters: list[Calls] = []

    def work() -> None:
        waiters.append(waiting(cache, "key"))
        subscribed(own_redis)
        held.release()
        waiters[0].outcomes()

    names = [name for name in sent(own_redis, work) if name not in {"PUBSUB", "UNSUBSCRIBE"}]
    assert names.count("SUBSCRIBE") == 1
    assert waiters[0].outcomes() == ["value of key"]
    # It reads the value, requests the lease, reads, and requests again.
    assert names.count("EVALSHA") == 3  # the waiter's lease twice, and the holder's fill
    assert cache.get("key") == "value of key"


def test_waiting_costs_redis_next_to_nothing_and_takes_no_connection_of_the_pool(
    own_redis: RedisServer,
) -> None:
    cache = ours(own_redis.url, max_connections=1, **LONG)
    keys = [f"key-{n}" for n in range(20)]
    held = Held(cache, *keys)
    calls = waiting(cache, *keys)
    subscribed(own_redis, 20)
    with raw(own_redis) as client:

        def reads() -> int:
            found = client.info("commandstats")
            return sum(found[name]["calls"] for name in READS if name in found)

        def is_quiet() -> bool:
            """Return True if in one second there are few reads, each of all keys."""
            began, before = clock.monotonic_s(), reads()
            until(lambda: clock.monotonic_s() - began > 1, "a second to pass")
            return (reads() - before) / (clock.monotonic_s() - began) < 12

        # All poll four times a second; without messages it would be thirty times. A caller whose
        # subscription is confirmed late polls more often for a second.
        until(is_quiet, "a second without many reads")
        # The listener's, the pool's only one, and this test's; others are being closed.
        until(lambda: len(client.client_list()) <= 3, "no more connections than these")

        def channels() -> list[int]:
            return [int(each["sub"]) for each in client.client_list() if int(each["sub"])]

        until(lambda: channels() == [20], "one connection to listen for all")
    cache.set("others", "work on")
    assert cache.get("others") == "work on"
    assert held.release() == [f"value of {key}" for key in keys]
    assert calls.outcomes() == [f"value of {key}" for key in keys]


def test_a_plain_write_is_found_by_looking(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, **LONG)
    held = Held(cache, "key")
    calls = waiting(cache, "key")
    subscribed(own_redis)
    cache.set("key", "written")  # publishes nothing
    assert calls.outcomes() == ["written"]
    assert held.release() == ["value of key"]
    assert cache.get("key") == "written"


def test_without_permission_to_subscribe_or_publish_a_waiter_polls(own_redis: RedisServer) -> None:
    with raw(own_redis) as client:
        rights = ("on", ">secret", "~*", "+@all", "resetchannels")
        client.execute_command("ACL", "SETUSER", "limited", *rights)
    cache = ours(own_redis.url, USERNAME="limited", PASSWORD="secret", **LONG)  # noqa: S106
    held = Held(cache, "key")
    calls = waiting(cache, "key")
    assert held.release() == ["value of key"]
    assert calls.outcomes() == ["value of key"]


def test_a_listener_that_is_cut_off_is_replaced(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, **LONG)
    held = Held(cache, "key")
    calls = waiting(cache, "key")
    subscribed(own_redis)
    with raw(own_redis) as client:
        kill = ("CLIENT", "KILL", "TYPE", "pubsub")
        # One whose subscription was confirmed late has ended it, and subscribes again.
        until(lambda: client.execute_command(*kill) == 1, "a listener")
    assert held.release() == ["value of key"]
    assert calls.outcomes() == ["value of key"]
    held = Held(cache, "other")

    def listens_again() -> bool:
        listener = cache._store._listener  # noqa: SLF001
        with listener.subscribe(b"cacheapp:lease:probe") as subscription:
            return subscription.confirmed.result(DEADLINE_S)

    until(listens_again, "a new connection", DEADLINE_S)
    calls = waiting(cache, "other")
    assert held.release() == ["value of other"]
    assert calls.outcomes() == ["value of other"]


def test_a_forked_child_waits_with_a_connection_of_its_own(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, **LONG)
    held = Held(cache, "key", "other")
    calls = waiting(cache, "key")
    subscribed(own_redis)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found = [cache.get_or_set(key, lambda: "own", 100) for key in ("key", "other")]
            code = int(found != ["value of key", "value of other"])
        finally:
            os._exit(code)
    with raw(own_redis) as client:
        until(
            lambda: (
                dict(client.pubsub_numsub("cacheapp:lease:ours:1:key"))[
                    b"cacheapp:lease:ours:1:key"
                ]
                == 2
            ),
            "the child to listen too",
            DEADLINE_S,
        )
    held.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert calls.outcomes() == ["value of key"]


# -- Redis fails during a wait -------------------------------------------------------------------


def test_a_restart_in_mid_factory_voids_the_lease_and_a_waiter_computes(
    own_redis: RedisServer,
) -> None:
    cache = ours(own_redis.url, **LONG)
    held = Held(cache, "key")
    store = cache._store  # noqa: SLF001
    calls = waiting(cache, "key")
    subscribed(own_redis)
    before = cache.stats()["voided_fills"]
    own_redis.kill()
    own_redis.start()
    # The waiter may have found the server down: then it raises, and nothing was computed twice.
    [found] = calls.outcomes()
    assert found == "own" or isinstance(found, DOWN)
    until(lambda: answers(cache), "the cache to work again", DEADLINE_S)
    held.release()
    assert cache.stats()["voided_fills"] - before == 1
    assert cache.get("key") == (None if isinstance(found, Exception) else "own")
    assert cache.get_or_set("key", lambda: "own", 100) == "own"
    assert store.executor.condition == "breaker closed"


def answers(cache: RedisCache) -> bool:
    try:
        cache.get("anything")
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("on_error", ["raise", "miss"])
def test_a_waiter_stops_waiting_when_redis_goes_down(own_redis: RedisServer, on_error: str) -> None:
    cache = ours(own_redis.url, on_error=on_error, **LONG)
    held = Held(cache, "key")
    calls = waiting(cache, "key")
    subscribed(own_redis)
    own_redis.kill()
    [found] = calls.outcomes()
    assert found == "own" if on_error == "miss" else isinstance(found, DOWN)
    [found] = held.release()
    assert found == "value of key" if on_error == "miss" else isinstance(found, DOWN)


def test_a_fill_without_room_gives_its_lease_back(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, **LONG)
    with raw(own_redis) as client:

        def factory() -> str:
            assert client.exists("ours:1:key") == 1
            client.config_set("maxmemory", "1")
            return "value"

        with pytest.raises(StoreFull):
            cache.get_or_set("key", factory, 100)
        assert client.exists("ours:1:key") == 0


def test_a_factory_whose_own_store_fails_runs_once(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, on_error="miss")
    runs = []

    def factory() -> str:
        runs.append(1)
        raise StoreUnavailable("another store")

    with pytest.raises(StoreUnavailable, match="another store"):
        cache.get_or_set("key", factory, 100)
    assert len(runs) == 1


@pytest.mark.parametrize("what", ["lease", "fill"])
def test_a_lease_and_a_fill_whose_reply_was_lost_are_repeated(
    own_redis: RedisServer, wire: Wire, what: str
) -> None:
    store = ours(wire.url)._store  # noqa: SLF001
    first, lease = store.new_lease(), store.new_lease()
    assert store.lease("warm", first, 100) is None
    assert store.fill("warm", first, b"x", 100)
    if what == "fill":
        assert store.lease("key", lease, 100) is None
    wire.lose()
    calls = Calls(
        lambda: (
            store.lease("key", lease, 100)
            if what == "lease"
            else store.fill("key", lease, b"value", 100)
        )
    )
    assert calls.outcomes() == [None if what == "lease" else True]
    with raw(own_redis) as client:
        assert client.get("key") == (lease if what == "lease" else b"value")


# -- visible or not ------------------------------------------------------------------------------

_SOON, _LATE = 4_000_000_000.0, 1_000_000.0
PAYLOADS = {
    "a value": b"\xa0 value",
    "a lease": lease_format.new_lease(bytes(HOLDER_BYTES)),
    "longer than a lease": b"\xb0" * (lease_format.LEASE_BYTES + 1),
    "shorter than a lease": b"\xb0" * (lease_format.LEASE_BYTES - 1),
    "soft": lease_format.add_soft_deadline(b"\xa0 value", _SOON),
    "soft, far away": lease_format.add_soft_deadline(b"\xa0 value", 1e300),
    "soft and past": lease_format.add_soft_deadline(b"\xa0 value", _LATE),
    "soft and past, an int": lease_format.add_soft_deadline(7, _LATE),
    "soft, an int": lease_format.add_soft_deadline(7, _SOON),
    "shorter than soft": b"\xc0" + bytes(16),
    "foreign and high": b"\xff\xff",
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_the_server_and_this_process_agree_on_what_is_visible(
    own_redis: RedisServer, payload: bytes
) -> None:
    store = ours(own_redis.url)._store  # noqa: SLF001
    is_visible = lease_format.visible(payload, time.time()) is not None

    def put() -> None:
        store.set("a:1:key", payload, 100)

    put()
    assert store.has("a:1:key") is is_visible
    assert bool(store.ttl("a:1:key")) is is_visible
    assert list(store.scan("a:1:", "*", 10)) == (["a:1:key"] if is_visible else [])
    assert store.add("a:1:key", b"x", 5) is not is_visible
    put()
    assert store.touch("a:1:key", 5) is is_visible
    put()
    assert store.persist("a:1:key") is is_visible
    put()
    assert store.delete("a:1:key") is is_visible
    put()
    assert store.remove("a:1:", "*", 10) == int(is_visible)
    assert store.get("a:1:key") is None


def test_touched_a_soft_entry_becomes_a_plain_one(own_redis: RedisServer) -> None:
    store = ours(own_redis.url)._store  # noqa: SLF001
    for inner in (7, -7, b"\xa0 value"):
        store.set("key", lease_format.add_soft_deadline(inner, _SOON), 100)
        assert store.touch("key", 50)
        assert store.get("key") == inner
        assert 0 < (store.ttl("key") or 0) <= 50
        store.set("key", lease_format.add_soft_deadline(inner, _SOON), 100)
        assert store.persist("key")
        assert (store.get("key"), store.ttl("key")) == (inner, None)


# -- locks ---------------------------------------------------------------------------------------


def test_tokens_grow_though_the_server_has_lost_everything(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, **LONG)
    tokens: list[int] = []

    def take() -> None:
        with cache.lock("lock") as lock:
            tokens.append(lock.token or 0)

    take()
    take()
    with raw(own_redis) as client:
        client.flushall()
    take()
    own_redis.kill()
    own_redis.start()
    take()
    with raw(own_redis) as client:  # as after a clock set back: the last token is in the future
        [fence] = client.keys("*fence")
        client.set(fence, 2**52)
    take()
    take()
    assert tokens == sorted(set(tokens))
    assert tokens[-2:] == [2**52 + 1, 2**52 + 2]


@pytest.mark.parametrize("prefix", ["ours", "", "a:1", "x:2:y"])
def test_no_clear_nor_pattern_reaches_a_lock(own_redis: RedisServer, prefix: str) -> None:
    cache = ours(own_redis.url, prefix)
    lock = cache.lock("a:1:name:2:", timeout=100)
    assert lock.acquire()
    with raw(own_redis) as client:
        keys = set(client.keys("*"))
        assert len(keys) == 2
        assert all(key.startswith(prefix.partition(":")[0].encode()) for key in keys)
        starts = {"", prefix, "a", "ours", *(key.decode().split(":")[0] for key in keys)}
        for start in starts | {key.decode().rpartition(":")[0] for key in keys}:
            other = ours(own_redis.url, start)
            other.clear()
            for version in (1, 2):
                assert other.delete_pattern("*", version=version) == 0
        assert set(client.keys("*")) == keys
    assert cache.keys("*") == []
    lock.release()


def test_a_lock_whose_reply_was_lost_is_requested_once_and_cancelled(
    own_redis: RedisServer, wire: Wire
) -> None:
    cache = ours(wire.url)
    with cache.lock("warm"):
        pass
    lock = cache.lock("lock", timeout=100)
    wire.lose()

    def lose() -> None:
        with pytest.raises(OutcomeUnknown, match=r"acquire_lock .* it was not repeated"):
            lock.acquire()

    assert sent(own_redis, lose) == ["EVALSHA", "EVALSHA", "EVAL"]  # the last two cancel it
    assert lock.token is None
    with cache.lock("lock", blocking=False) as other:
        assert other.locked()
        with pytest.raises(LockLost):
            lock.release()
        assert other.owned()
    assert wire.lost == 1


def test_an_acquisition_that_arrives_after_its_cancellation_gets_nothing(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(own_redis.url)
    locks: Any = cache._store._locks  # noqa: SLF001
    monkeypatch.setattr(os, "urandom", bytes)
    locks._cancel("ours:1:lock", bytes(8).hex().encode())  # noqa: SLF001
    assert locks.acquire("ours:1:lock", 100, lambda _token: None) is None
    monkeypatch.undo()
    assert locks.acquire("ours:1:lock", 100, lambda _token: None) is not None
    assert locks.acquire("ours:1:lock", 100, lambda _token: None) is None


def test_a_cancellation_frees_no_lock_of_another_call(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url)
    locks: Any = cache._store._locks  # noqa: SLF001
    with cache.lock("lock", timeout=100) as lock:
        locks._cancel(lock.operation_keys[0], bytes(8).hex().encode())  # noqa: SLF001
        assert lock.owned()
