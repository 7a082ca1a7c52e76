"""`@cached` on every shared backend."""

import asyncio
import inspect
import os
import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from cacheapp.backends.core.lease_format import REFRESH_SUFFIX
from cacheapp.backends.core.shared import SharedCache
from cacheapp.cached import cached
from cacheapp.processes.waiting import until
from tests.contract import decorated
from tests.contract.clients import Clients
from tests.contract.conftest import Build

DEADLINE_S = 30
_calls: list[Any] = []
_answers: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    _calls.clear()
    _answers.clear()


def _compute(*args: Any) -> Any:
    """Return a value, raise an error, or call a function, as the test chooses."""
    _calls.append(args)
    answer = _answers.get(args, f"computed {args}")
    if isinstance(answer, Exception):
        raise answer
    return answer() if callable(answer) else answer


@cached(100)
def price(book: Any, count: int = 1) -> Any:
    return _compute(book, count)


@cached(0.05, stale=1000)
def stock(book: Any) -> Any:
    return _compute(*book)


@cached(1000, jitter=0.5, version=7, alias="other")
def tax(book: Any) -> Any:
    return _compute(book)


@cached(100)
async def aprice(book: Any) -> Any:
    await asyncio.sleep(0)
    return _compute(book)


class Basket(User):
    """A model with a cached method; never in a database here."""

    class Meta:  # noqa: D106 (as Django writes it)
        proxy = True
        app_label = "auth"

    @cached(100)
    def total(self, currency: str = "EUR") -> Any:
        return _compute(self.username, currency)

    @cached(100)
    async def atotal(self, currency: str) -> Any:
        return _compute(self.username, currency)


def _basket(pk: int, name: str) -> Basket:
    basket = Basket(pk=pk, username=name)
    basket._state.adding = False  # noqa: SLF001
    return basket


def test_a_result_is_computed_once_however_the_arguments_are_given(cache: SharedCache) -> None:
    assert price(7) == price(book=7) == price(7, 1) == "computed (7, 1)"
    assert _calls == [(7, 1)]
    assert price("7") == "computed ('7', 1)"
    assert cache.get(price.key_for(7)) == "computed (7, 1)"
    assert 90 < (cache.ttl(price.key_for(7)) or 0) <= 100


def test_none_is_a_result(cache: SharedCache) -> None:
    _answers[7, 1] = None
    assert price(7) is None
    assert price(7) is None
    assert _calls == [(7, 1)]


def test_an_error_is_raised_and_not_stored(cache: SharedCache) -> None:
    _answers[7, 1] = LookupError("no such book")
    with pytest.raises(LookupError, match="no such book"):
        price(7)
    _answers[7, 1] = "found"
    assert price(7) == "found"


def test_invalidate_deletes_the_result_for_these_arguments_alone(cache: SharedCache) -> None:
    price(7)
    price(8)
    assert price.invalidate(book=7) is True
    assert price.invalidate(7) is False
    price(7)
    price(8)
    assert _calls == [(7, 1), (8, 1), (7, 1)]


def test_a_result_that_was_invalidated_while_it_was_computed_is_not_stored(
    cache: SharedCache,
) -> None:
    _answers[7, 1] = lambda: (price.invalidate(7), "of before")[1]
    assert price(7) == "of before"
    _answers[7, 1] = "of after"
    assert price(7) == "of after"


def test_refresh_computes_and_stores_though_a_result_is_there(cache: SharedCache) -> None:
    _answers[7, 1] = "old"
    price(7)
    _answers[7, 1] = lambda: f"new, while others see {price(7)}"
    assert price.refresh(7) == "new, while others see old"
    assert price(7) == "new, while others see old"
    assert 90 < (cache.ttl(price.key_for(7)) or 0) <= 100


def test_a_refresh_that_raises_leaves_the_old_result(cache: SharedCache) -> None:
    price(7)
    _answers[7, 1] = LookupError("broken")
    with pytest.raises(LookupError, match="broken"):
        price.refresh(7)
    assert price(7) == "computed (7, 1)"


def test_refresh_is_a_write_that_voids_the_lease_of_a_computing_caller(cache: SharedCache) -> None:
    def slow() -> str:
        _answers[7, 1] = "refreshed"
        assert price.refresh(7) == "refreshed"
        return "slow"

    _answers[7, 1] = slow
    before = cache.stats()["voided_fills"]
    assert price(7) == "slow"
    assert price(7) == "refreshed"
    assert cache.stats()["voided_fills"] - before == 1


def _until_refreshed(cache: SharedCache) -> None:
    """Wait for the new value, and for the last refresh: it would compute during another test."""
    until(lambda: stock([7]) == "new", "the refreshed value")
    lease = cache.make_and_validate_key(stock.key_for([7])) + REFRESH_SUFFIX
    until(lambda: cache._store.get(lease) is None, "the end of the refresh")  # noqa: SLF001


def test_what_refresh_stored_may_be_served_stale_too(cache: SharedCache) -> None:
    _answers[7,] = "old"
    assert stock.refresh([7]) == "old"
    until(lambda: not cache.has_key(stock.key_for([7])), "the soft deadline to pass")
    _answers[7,] = "new"
    assert stock([7]) == "old"
    _until_refreshed(cache)


def test_arguments_changed_after_the_call_do_not_reach_a_refresh_in_the_background(
    cache: SharedCache,
) -> None:
    gate = threading.Event()
    stock([7])
    until(lambda: not cache.has_key(stock.key_for([7])), "the soft deadline to pass")
    _calls.clear()
    _answers[7,] = lambda: (gate.wait(DEADLINE_S), "new")[1]
    books = [7]
    assert stock(books) == "computed (7,)"
    books.append(8)
    gate.set()
    _until_refreshed(cache)
    assert (7, 8) not in _calls


def test_alias_version_and_jitter_are_those_of_the_decorator(
    cache: SharedCache, build: Build
) -> None:
    other = build("other", KEY_PREFIX="other")
    for book in range(20):
        tax(book)
        tax.refresh(book)
    keys = [tax.key_for(book) for book in range(20)]
    assert len(other.get_many(keys, version=7)) == 20
    assert other.get_many(keys) == {}
    assert cache.get_many(keys, version=7) == {}
    left = {other.ttl(key, version=7) for key in keys}
    assert len(left) > 5
    assert all(490 <= (seconds or 0) <= 1000 for seconds in left)
    assert tax.invalidate(0) is True
    assert other.get(keys[0], version=7) is None


def test_set_stores_as_get_or_set_would(cache: SharedCache) -> None:
    cache.set("key", 7, 100, stale=1000)
    assert cache.get("key") == 7
    cache.set("key", 7, 0.05, stale=1000)
    until(lambda: not cache.has_key("key"), "the soft deadline to pass")
    assert cache.get_or_set("key", lambda: 8, 100, stale=1000) == 7
    cache.set("gone", 7, 0, stale=1000)
    assert cache.get("gone") is None
    with pytest.raises(ValueError, match="stale is -1"):
        cache.set("key", 7, 100, stale=-1)


async def test_aset_stores_as_aget_or_set_would(cache: SharedCache) -> None:
    await cache.aset("key", 7, 0.05, stale=1000)
    await asyncio.to_thread(until, lambda: not cache.has_key("key"), "the soft deadline to pass")
    assert await cache.aget_or_set("key", lambda: 8, 100, stale=1000) == 7


def test_a_method_of_a_model_is_cached_for_each_row(cache: SharedCache) -> None:
    assert _basket(1, "ann").total() == "computed ('ann', 'EUR')"
    assert _basket(1, "renamed").total("EUR") == "computed ('ann', 'EUR')"
    assert _basket(2, "bob").total() == "computed ('bob', 'EUR')"
    assert _basket(1, "renamed").total.invalidate() is True
    assert Basket.total(_basket(1, "renamed")) == "computed ('renamed', 'EUR')"
    assert Basket.total.invalidate(_basket(1, "renamed"), currency="EUR") is True


def test_other_caches_are_refused_because_they_do_not_compute_once(settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(ImproperlyConfigured, match=r"CACHES\['default'\].*LocMemCache; expected"):
        price(7)


# -- coroutine functions -------------------------------------------------------------------------


async def test_all_tasks_get_the_result_of_one_call(cache: SharedCache) -> None:
    results = await asyncio.gather(*(aprice(7) for _ in range(20)))
    assert results == ["computed (7,)"] * 20
    assert await aprice(book=7) == "computed (7,)"
    assert _calls == [(7,)]


async def test_a_coroutine_function_is_invalidated_and_refreshed(cache: SharedCache) -> None:
    await aprice(7)
    assert await aprice.ainvalidate(7) is True
    assert await aprice.ainvalidate(7) is False
    _answers[7,] = None
    assert await aprice(7) is None
    _answers[7,] = "new"
    assert await aprice(7) is None
    assert await aprice.arefresh(7) == "new"
    assert await aprice(7) == "new"


def test_sync_code_may_invalidate_a_coroutine_function(cache: SharedCache) -> None:
    assert asyncio.run(aprice(7)) == "computed (7,)"
    assert aprice.invalidate(7) is True
    assert cache.get(aprice.key_for(7)) is None


async def test_async_code_may_invalidate_a_function(cache: SharedCache) -> None:
    await asyncio.to_thread(price, 7)
    assert await price.ainvalidate(7) is True


async def test_a_coroutine_method_is_cached_for_each_row(cache: SharedCache) -> None:
    ann = _basket(1, "ann")
    assert await ann.atotal("EUR") == "computed ('ann', 'EUR')"
    assert await _basket(1, "renamed").atotal(currency="EUR") == "computed ('ann', 'EUR')"
    assert await ann.atotal.ainvalidate("EUR") is True


def test_a_cached_coroutine_function_is_known_as_one() -> None:
    from asgiref.sync import iscoroutinefunction  # noqa: PLC0415

    assert iscoroutinefunction(aprice)
    assert not iscoroutinefunction(price)
    assert not inspect.iscoroutinefunction(price)


# -- processes -----------------------------------------------------------------------------------


def test_one_process_of_all_computes_and_any_of_them_invalidates(
    cache: SharedCache, clients: Clients
) -> None:
    cache.set("runs", 0, None)
    answers = clients.run(decorated.ask, 20, processes=4, threads=4)
    assert len(answers) == 16
    assert all(answer == answers[0] for answer in answers)
    assert sorted(run for _pid, run in answers[0]) == list(range(1, 21))
    assert decorated.who_computed(0) == answers[0][0]
    assert clients.run(decorated.invalidate, 0, processes=1) == [True]
    assert decorated.who_computed(0) == (os.getpid(), 21)
