import random
from collections import Counter

import pytest

from cacheapp.consistency.history import ABSENT, Operation, by_key
from cacheapp.consistency.judge import judge
from cacheapp.consistency.models import EvictingKey, Key
from cacheapp.consistency.search import Verdict, search
from cacheapp.consistency.zones import judge_zones
from tests.unit.consistency.histories import distinct_history, op

REGISTER = ["get", "get", "set"]
ALL = ["get", "get", "get", "set", "set", "add", "delete", "touch", "has_key"]


def compare(rng: random.Random, count: int, kinds: list[str], *, evicts: bool) -> Counter[str]:
    """Judge random histories by zones and by search; return how many had each verdict."""
    model = EvictingKey() if evicts else Key()
    said: Counter[str] = Counter()
    for _ in range(count):
        own = by_key(distinct_history(rng, rng.randint(2, 8), kinds)).get("k", [])
        zones = judge_zones(own, evicts=evicts)
        if zones is None:
            said["not decided"] += 1
            continue
        assert zones.verdict is search(own, model).verdict, own
        if zones.core:
            assert search(zones.core, model).verdict is Verdict.ILLEGAL, own
        said[zones.verdict] += 1
    return said


@pytest.mark.parametrize("evicts", [False, True], ids=["kept", "evicts"])
def test_registers_are_judged_as_by_the_search(*, evicts: bool) -> None:
    said = compare(random.Random(1), 1_000, REGISTER, evicts=evicts)
    assert set(said) == {Verdict.LINEARIZABLE, Verdict.ILLEGAL}
    assert min(said.values()) > 100


def test_with_other_calls_only_what_is_illegal_is_decided() -> None:
    said = compare(random.Random(2), 1_000, ALL, evicts=False)
    assert said[Verdict.ILLEGAL] > 100
    assert said["not decided"] > 100


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_hundred_thousand_histories_are_judged_as_by_the_search() -> None:
    for number, kinds in enumerate([REGISTER, ALL]):
        for evicts in (False, True):
            compare(random.Random(number), 25_000, kinds, evicts=evicts)


@pytest.mark.parametrize(
    "history",
    [
        [op("a", "set", 0, 1, 1), op("b", "set", 2, 3, 1)],
        [op("a", "set", 0, 1, 1), op("b", "incr", 2, 3, 1, 2)],
        [op("a", "set", 0, 1, 1), op("b", "add", 2, 3, 5), op("a", "get", 4, 5, result=1)],
    ],
    ids=["a value written twice", "a counter", "an add that does not say whether it wrote"],
)
def test_what_zones_cannot_judge_is_left_to_the_search(history: list[Operation]) -> None:
    assert judge_zones(history) is None
    assert judge(history).verdict is Verdict.LINEARIZABLE


def test_a_hot_key_without_an_order_is_decided_where_a_search_would_give_up() -> None:
    # Eight clients write at the same time for the whole run, and two reads contradict each other.
    writes = [
        op(f"p{client}", "set", 10 * turn, 10 * turn + 9, 8 * turn + client)
        for turn in range(300)
        for client in range(8)
    ]
    reads = [
        op("r", "get", 3_001, 3_002, result=2_399),
        op("s", "get", 3_003, 3_004, result=2_398),
        op("t", "get", 3_005, 3_006, result=2_399),
    ]
    judged = judge([*writes, *reads], budget=10_000)
    assert judged.verdict is Verdict.ILLEGAL
    assert judged.counterexample is not None
    assert len(judged.counterexample.operations) <= 3


def test_a_read_that_ended_before_its_write_began_is_impossible() -> None:
    read, written = op("a", "get", 0, 1, result=5), op("b", "set", 2, 3, 5)
    judged = judge([read, written])
    assert judged.counterexample is not None
    assert judged.counterexample.operations == (read,)


def test_a_miss_beside_the_first_write_has_an_order_and_one_after_it_has_none() -> None:
    beside = [op("a", "set", 0, 5, 1), op("b", "get", 5, 6, result=ABSENT)]
    after = [op("a", "set", 0, 5, 1), op("b", "get", 6, 7, result=ABSENT)]
    found = [judge_zones(beside), judge_zones(after)]
    assert [one and one.verdict for one in found] == [Verdict.LINEARIZABLE, Verdict.ILLEGAL]
