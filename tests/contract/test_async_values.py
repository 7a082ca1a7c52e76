"""Async methods serialize values where Django's own backends do: with the request's connections."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.core import signals
from django.db import connection, transaction
from django.db.backends.signals import connection_created

from cacheapp.backends.core.plain_data import are_plain
from cacheapp.backends.core.shared import SharedCache
from cacheapp.cached import cached
from cacheapp.processes.waiting import until
from tests.contract.conftest import Build
from tests.contract.renewals import renewals

Write = Callable[[SharedCache, str], Awaitable[Any]]

DEADLINE_S = 100


def _groups() -> Any:
    return Group.objects.order_by("name")


async def _agroups() -> Any:
    return _groups()


WRITES: dict[str, Write] = {
    "aset": lambda cache, key: cache.aset(key, _groups()),
    "aset in a list": lambda cache, key: cache.aset(key, [_groups()]),
    "aset of many parts": lambda cache, key: cache.aset(key, [*range(5000), _groups()]),
    "aadd": lambda cache, key: cache.aadd(key, _groups()),
    "aset_many": lambda cache, key: cache.aset_many({key: _groups(), f"{key}'": 1}),
    "aget_or_set of a value": lambda cache, key: cache.aget_or_set(key, _groups()),
    "aget_or_set of a function": lambda cache, key: cache.aget_or_set(key, _groups),
    "aget_or_set of a coroutine function": lambda cache, key: cache.aget_or_set(key, _agroups),
}
writes = pytest.mark.parametrize("write", list(WRITES))


def _names(found: Any) -> list[str]:
    if isinstance(found, list):
        found = found[-1]
    return [group.name for group in found]


@contextlib.contextmanager
def _connections_left() -> Iterator[list[Any]]:
    """Collect the database connections that are made in the block, and check that all were closed."""
    made: list[Any] = []

    def note(connection: Any, **_kwargs: Any) -> None:
        made.append(connection)

    connection_created.connect(note)
    try:
        yield made
    finally:
        connection_created.disconnect(note)
    assert [one for one in made if one.connection is not None] == []


@writes
@pytest.mark.django_db(transaction=True)
def test_querysets_of_concurrent_requests_are_stored_and_their_connections_closed(
    cache: SharedCache, write: str
) -> None:
    Group.objects.create(name="editors")
    connection.close()

    async def request(number: int) -> None:
        async with ThreadSensitiveContext():  # as Django's handler does
            await WRITES[write](cache, f"key{number}")
            await sync_to_async(signals.request_finished.send)(sender=None)

    async def requests() -> None:
        for _ in range(3):
            await asyncio.gather(*map(request, range(12)))

    with _connections_left() as made:
        asyncio.run(requests())
        assert made
    for number in range(12):
        assert _names(cache.get(f"key{number}")) == ["editors"]


@writes
@pytest.mark.django_db(transaction=True)
def test_a_queryset_inside_a_transaction_sees_what_the_transaction_wrote(
    cache: SharedCache, write: str
) -> None:
    async def work() -> None:
        await WRITES[write](cache, "key")

    with transaction.atomic():
        Group.objects.create(name="not committed yet")
        async_to_sync(work)()
        transaction.set_rollback(True)
    assert _names(cache.get("key")) == ["not committed yet"]


@cached(60)
async def all_groups() -> Any:
    return Group.objects.all()


@pytest.mark.django_db(transaction=True)
def test_a_cached_coroutine_function_may_return_a_queryset(cache: SharedCache) -> None:
    del cache  # the alias `default`
    with transaction.atomic():
        Group.objects.create(name="not committed yet")
        assert _names(async_to_sync(all_groups)()) == ["not committed yet"]
        transaction.set_rollback(True)
    assert _names(async_to_sync(all_groups)()) == ["not committed yet"]
    with transaction.atomic():
        async_to_sync(all_groups.arefresh)()
    assert _names(async_to_sync(all_groups)()) == []


@pytest.mark.django_db(transaction=True)
def test_a_refresh_in_the_background_closes_its_connections(cache: SharedCache) -> None:
    Group.objects.create(name="editors")
    connection.close()
    cache.set("key", "old", 0.001, stale=60)
    until(lambda: cache.get("key") is None, "the soft deadline")

    async def work() -> None:
        async with ThreadSensitiveContext():
            assert await cache.aget_or_set("key", _groups, 60, stale=60) == "old"
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    with _connections_left() as made:
        asyncio.run(work())
        assert made
    assert _names(cache.get("key")) == ["editors"]


class Where:
    """Notes the thread that serializes it."""

    seen: list[int] = []  # noqa: RUF012 (cleared by each test)

    def __getstate__(self) -> dict[str, int]:
        self.seen.append(threading.get_ident())
        return {"x": 1}


async def test_only_values_with_code_of_their_own_need_the_requests_thread(
    cache: SharedCache,
) -> None:
    Where.seen.clear()
    blocked = threading.Event()
    async with ThreadSensitiveContext():
        thread = await sync_to_async(threading.get_ident)()
        await cache.aset("key", Where())
        assert Where.seen == [thread]
        blocking = asyncio.ensure_future(sync_to_async(blocked.wait)(DEADLINE_S))
        await cache.aset("plain", {"a": [1, 2.5, None, ("b", b"c", True, {1}, frozenset([2]))]})
        await cache.aget_or_set("computed", dict)
        blocked.set()
        assert await blocking


async def test_a_lease_is_renewed_while_its_value_is_serialized(build: Build) -> None:
    cache = build("short", OPTIONS={"lease_time": 9.0})  # renewed every 3 s
    blocked = threading.Event()
    with renewals(cache) as renewed:
        async with ThreadSensitiveContext():
            blocking = asyncio.ensure_future(sync_to_async(blocked.wait)(DEADLINE_S))
            computing = asyncio.ensure_future(cache.aget_or_set("key", Where))
            await asyncio.to_thread(until, lambda: renewed, "the lease to be renewed")
            assert cache.stats()["factory_runs"] == 1
            blocked.set()
            await blocking
            await computing
    assert type(cache.get("key")) is Where
    assert cache.stats()["voided_fills"] == 0


class Text(str):
    """A subclass, whose code may do anything."""

    __slots__ = ()


looped: list[Any] = []
looped.append(looped)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, True),
        ("text", True),
        ([1, {"a": (2.5, b"c", {True}, frozenset())}], True),
        (Text("text"), False),
        ([Text("text")], False),
        ({Text("name"): 1}, False),
        ({"name": object()}, False),
        (_groups(), False),
        (list(range(10_000)), False),
        (looped, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_is_of_builtin_types_only(*, value: object, plain: bool) -> None:
    assert are_plain([value]) is plain
