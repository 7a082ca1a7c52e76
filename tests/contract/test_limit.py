"""`limit()` on every shared backend."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.throttle import Limit, alimit, limit
from tests.contract import decorated
from tests.contract.clients import Clients
from tests.contract.rates import LONG_S, Now, variant


def test_exactly_the_rate_is_allowed_across_all_processes_and_threads(
    cache: SharedCache, clients: Clients
) -> None:
    answers = clients.run(decorated.attempt, "name", 500, LONG_S, [1], 50, processes=4, threads=4)
    found = [each for answer in answers for each in answer]
    assert len(found) == 800
    allowed = [each for each in found if each.allowed]
    assert sorted(each.used for each in allowed) == list(range(1, 501))
    assert all(each.remaining == 500 - each.used for each in allowed)
    refused = [each for each in found if not each.allowed]
    assert {(each.used, each.remaining) for each in refused} == {(500, 0)}
    assert limit("name", 500, LONG_S).allowed is False
    assert limit("other name", 500, LONG_S).used == 1


def test_costs_never_add_up_to_more_than_the_rate(cache: SharedCache, clients: Clients) -> None:
    answers = clients.run(
        decorated.attempt, "name", 1000, LONG_S, [7, 1, 3], 30, processes=4, threads=4
    )
    # Each result has the costs in order, so that its index gives the cost of an attempt.
    spent = sum(
        [7, 1, 3][place % 3]
        for answer in answers
        for place, each in enumerate(answer)
        if each.allowed
    )
    assert spent <= 1000
    left = [limit("name", 1000, LONG_S) for _ in range(1000 - spent + 1)]
    assert [each.allowed for each in left] == [True] * (1000 - spent) + [False]


def test_the_next_window_counts_from_zero(cache: SharedCache, now: Now) -> None:
    assert limit("name", 2, 60) == Limit(True, 1, 1, 0.0, 60.0)  # noqa: FBT003
    now.wall_s += 12.5
    assert limit("name", 2, 60) == Limit(True, 2, 0, 0.0, 47.5)  # noqa: FBT003
    assert limit("name", 2, 60) == Limit(False, 2, 0, 47.5, 47.5)  # noqa: FBT003
    now.wall_s += 47.0
    assert limit("name", 2, 60).retry_after_s == 0.5
    now.wall_s += 0.5
    assert limit("name", 2, 60) == Limit(True, 1, 1, 0.0, 60.0)  # noqa: FBT003


def test_a_refused_attempt_costs_nothing(cache: SharedCache, now: Now) -> None:
    assert limit("name", 10, 60, cost=8).used == 8
    assert limit("name", 10, 60, cost=3) == Limit(False, 8, 2, 60.0, 60.0)  # noqa: FBT003
    assert limit("name", 10, 60, cost=2) == Limit(True, 10, 0, 0.0, 60.0)  # noqa: FBT003


def test_other_names_other_times_and_other_aliases_count_apart(
    cache: SharedCache, now: Now, build: Callable[..., SharedCache]
) -> None:
    build("limits", KEY_PREFIX="limits")
    assert limit("name", 5, 60).used == 1
    assert limit("name", 5, 60.0).used == 2
    assert limit("name", 9, 60).used == 3  # a new rate continues from the count
    assert limit("other", 5, 60).used == 1
    assert limit("name", 5, 30).used == 1
    assert limit("name", 5, 60, alias="limits").used == 1
    assert limit("odd name \n" * 100, 5, 60).used == 1


def test_a_counter_goes_soon_after_its_window(cache: SharedCache, now: Now) -> None:
    limit("name", 5, 60)
    [key] = cache.keys("limit:*")
    assert key == f"limit:name:60.0:{now.wall_s // 60:.0f}"
    assert 100 <= (cache.ttl(key) or 0) <= 120


def test_tasks_count_exactly_too(cache: SharedCache) -> None:
    async def attempts() -> list[Limit]:
        return await asyncio.gather(*(alimit("name", 15, LONG_S) for _ in range(40)))

    found = asyncio.run(attempts())
    assert sum(each.allowed for each in found) == 15


class _Evicting:
    """Mix-in: the key is gone before each of the next `evictions` calls of `incr`."""

    evictions = 0

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        if self.evictions:
            self.evictions -= 1
            self.delete(key, version)  # type: ignore[attr-defined]
        found: int = super().incr(key, delta, version)  # type: ignore[misc]
        return found


def test_a_counter_that_is_evicted_between_add_and_incr_is_made_again(cache: SharedCache) -> None:
    evicting = variant(cache, _Evicting)
    evicting.evictions = 3
    assert limit("name", 5, LONG_S, alias="variant").used == 1
    evicting.evictions = 100
    with pytest.raises(StoreUnavailable, match="'name' was removed 10 times between add and incr"):
        limit("name", 5, LONG_S, alias="variant")


class _Late:
    """Mix-in: others use up the limit between this one's reading and its counting."""

    others: Callable[[], Any] | None = None
    failing = False

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        found = super().get(key, default, version)  # type: ignore[misc]
        if self.others:
            others, self.others = self.others, None
            others()
        return found

    def decr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        if self.failing:
            raise OutcomeUnknown("the answer was lost")
        found: int = super().decr(key, delta, version)  # type: ignore[misc]
        return found


def test_an_overtaken_attempt_is_refused_and_its_cost_is_subtracted(
    cache: SharedCache, now: Now
) -> None:
    late = variant(cache, _Late)
    late.others = lambda: limit("name", 10, 60, cost=8)
    assert limit("name", 10, 60, cost=3, alias="variant") == Limit(False, 8, 2, 60.0, 60.0)  # noqa: FBT003
    assert limit("name", 10, 60, cost=2) == Limit(True, 10, 0, 0.0, 60.0)  # noqa: FBT003


def test_a_cost_that_cannot_be_subtracted_allows_no_attempt_too_many(
    cache: SharedCache, now: Now
) -> None:
    late = variant(cache, _Late)
    late.others = lambda: limit("name", 10, 60, cost=8)
    late.failing = True
    assert limit("name", 10, 60, cost=3, alias="variant").allowed is False
    assert limit("name", 10, 60, cost=2) == Limit(False, 10, 0, 60.0, 60.0)  # noqa: FBT003


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": "5/m"}, "rate is '5/m'"),
        ({"rate": True}, "rate is True"),
        ({"per": 0}, "per is 0"),
        ({"per": "m"}, "per is 'm'"),
        ({"per": float("inf")}, "per is inf"),
        ({"per": float("nan")}, "per is nan"),
        ({"cost": 0}, "cost is 0"),
        ({"cost": 6}, "cost is 6"),
        ({"name": ""}, "name is ''"),
        ({"name": 7}, "name is 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_refused_by_name(
    cache: SharedCache, wrong: dict[str, Any], message: str
) -> None:
    arguments = {"name": "name", "rate": 5, "per": 60, **wrong}
    with pytest.raises(ValueError, match=f"{message}; expected"):
        limit(**arguments)
    assert cache.keys("*") == []


def test_caches_that_do_not_count_over_all_workers_are_refused(settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(ImproperlyConfigured, match=r"limit\(\) uses CACHES\['default'\].*LocMem"):
        limit("name", 5, 60)
