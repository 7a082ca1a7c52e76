"""What is said of a cache by what its workers see: never more than that."""

import pytest

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.verdict import (
    Counted,
    LastChanges,
    WorkerView,
    Written,
    judge,
    judge_views,
)

WRITTEN = Written("abc", 1)
COUNTED = Counted("k", asked=100, done=100, unknown=0, repeated=0)


def _all(*values: object, counts: tuple[object, ...] = ()) -> list[WorkerView]:
    counts = counts or (None,) * len(values)
    return [WorkerView(n + 1, value, counts[n]) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("asked", "seen", "verdict", "word"),
    [
        (
            LastChanges(WRITTEN),
            _all("abc", "abc"),
            SharingVerdict.SHARED,
            "all 2 workers read what worker 1",
        ),
        (LastChanges(WRITTEN), _all("abc", None), SharingVerdict.BROKEN, "not seen by worker 2"),
        (
            LastChanges(WRITTEN),
            _all("abc", "old", "old"),
            SharingVerdict.BROKEN,
            "not seen by workers 2 and 3",
        ),
        (
            LastChanges(WRITTEN),
            _all(None, None),
            SharingVerdict.OPEN,
            "no worker has the key any more",
        ),
        (LastChanges(), _all(None, None), SharingVerdict.OPEN, "nothing was written yet"),
        (LastChanges(WRITTEN), _all("abc"), SharingVerdict.OPEN, "sharing requires two"),
        (
            LastChanges(None, COUNTED),
            _all(None, None, counts=(100, 100)),
            SharingVerdict.SHARED,
            "after 100 concurrent increments",
        ),
        (
            LastChanges(None, COUNTED),
            _all(None, None, counts=(50, 50)),
            SharingVerdict.BROKEN,
            "read 50 and 50",
        ),
        (
            LastChanges(None, COUNTED),
            _all(None, None, counts=(100, None)),
            SharingVerdict.BROKEN,
            "and nothing",
        ),
        (
            LastChanges(WRITTEN, COUNTED),
            _all("abc", "abc", counts=(None, None)),
            SharingVerdict.SHARED,
            "all 2",
        ),
    ],
    ids=[
        *("seen by all", "by one", "others read an old one", "gone", "nothing yet", "alone"),
        *("counted", "lost updates", "one has no counter", "counter gone"),
    ],
)
def test_the_verdict_follows_from_what_is_seen(
    asked: LastChanges, seen: list[WorkerView], verdict: SharingVerdict, word: str
) -> None:
    found = judge(asked, seen)
    assert found.verdict is verdict
    assert word in "; ".join(found.why)


def test_a_worker_that_does_not_answer_keeps_a_cache_from_being_called_shared() -> None:
    seen = [*_all("abc", "abc"), WorkerView(3, silent=True)]
    assert judge(LastChanges(WRITTEN), seen).verdict is SharingVerdict.OPEN
    assert judge(LastChanges(WRITTEN), _all("abc", "abc"), missing=1).verdict is SharingVerdict.OPEN


def test_two_that_disagree_are_enough_whoever_is_silent() -> None:
    seen = [*_all("abc", None), WorkerView(3, silent=True)]
    assert judge(LastChanges(WRITTEN), seen).verdict is SharingVerdict.BROKEN


def test_a_store_that_refuses_is_down_and_says_why() -> None:
    seen = [WorkerView(1, error="no route"), WorkerView(2, error="no route")]
    found = judge(LastChanges(WRITTEN), seen)
    assert (found.verdict, found.why) == (SharingVerdict.DOWN, ["no route"])


def test_an_increment_whose_outcome_is_unknown_excuses_a_larger_sum_and_no_smaller_one() -> None:
    counted = Counted("k", asked=100, done=98, unknown=2, repeated=0)
    seen = {
        sum_: judge(LastChanges(None, counted), _all(None, None, counts=(sum_, sum_)))
        for sum_ in (97, 99, 101)
    }
    assert [seen[97].verdict, seen[101].verdict] == [SharingVerdict.BROKEN, SharingVerdict.BROKEN]
    assert seen[99].verdict is not SharingVerdict.BROKEN


def test_a_sum_that_two_were_told_is_broken_even_where_all_read_the_same() -> None:
    counted = Counted("k", asked=100, done=100, unknown=0, repeated=3)
    found = judge(LastChanges(None, counted), _all(None, None, counts=(100, 100)))
    assert found.verdict is SharingVerdict.BROKEN
    assert "3 increments returned the same sum as another one" in found.why


@pytest.mark.parametrize(
    ("values", "counts", "expected"),
    [
        (["v", "v"], [2, 2], [("right", "right"), ("right", "right")]),
        (["v", None], [2, 1], [("right", "right"), ("wrong", "wrong")]),
        ([None, None], [None, None], [("expired", "expired"), ("expired", "expired")]),
        (["v", "v"], [3, 3], [("right", "right"), ("right", "right")]),
    ],
    ids=["shared", "broken", "expired for all", "an unknown increment happened"],
)
def test_a_cell_follows_the_rules_of_the_verdict(
    values: list[str | None], counts: list[int | None], expected: list[tuple[str, str]]
) -> None:
    changes = LastChanges(Written("v", 1), Counted("k", 3, 2, 1, 0))
    views = [
        WorkerView(pid, value, count)
        for pid, (value, count) in enumerate(zip(values, counts, strict=True), 1)
    ]
    compared = judge_views(changes, views)
    assert [(one.value, one.count) for one in compared] == expected
    is_wrong = any(one.misses for one in compared)
    assert is_wrong == (judge(changes, views).verdict is SharingVerdict.BROKEN)
