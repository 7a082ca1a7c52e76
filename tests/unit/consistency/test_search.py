import dataclasses
import itertools
import random
import time

import pytest

from cacheapp.consistency.history import ABSENT, Operation, Outcome, by_key
from cacheapp.consistency.judge import judge
from cacheapp.consistency.models import EvictingKey, Key
from cacheapp.consistency.relaxation import Relaxation
from cacheapp.consistency.search import Verdict, search
from tests.unit.consistency.histories import explained, op, random_history, run_history

LEGAL, ILLEGAL = Verdict.LINEARIZABLE, Verdict.ILLEGAL


@pytest.mark.parametrize("evicts", [False, True], ids=["kept", "evicts"])
@pytest.mark.parametrize("seed", range(4))
def test_every_verdict_is_that_of_trying_all_orders(*, seed: int, evicts: bool) -> None:
    rng = random.Random(seed)
    said = {True: 0, False: 0}
    for _ in range(500):
        history = random_history(rng, rng.randint(2, 5))
        expected = explained(history, evicts=evicts)
        said[expected] += 1
        own = by_key(history).get("k", [])
        verdict = search(own, EvictingKey() if evicts else Key()).verdict
        assert verdict is (LEGAL if expected else ILLEGAL), history
    assert min(said.values()) > 50, "a comparison of one kind shows nothing"


def explained_with(sure: list[Operation], optional: list[Operation]) -> bool:
    """Return whether some order explains all of some operations and any of others."""
    return any(
        explained([*sure, *some], evicts=False)
        for count in range(len(optional) + 1)
        for some in itertools.combinations(optional, count)
    )


@pytest.mark.parametrize("seed", range(4))
def test_optional_operations_take_effect_in_their_interval_or_never(seed: int) -> None:
    rng = random.Random(seed)
    said = {True: 0, False: 0}
    strict = 0
    for _ in range(500):
        own = by_key(random_history(rng, rng.randint(3, 6))).get("k", [])
        optional = [one for one in own if one.may_write and rng.random() < 0.6]
        sure = [one for one in own if one not in optional]
        expected = explained_with(sure, optional)
        said[expected] += 1
        found = search(sure, Key(), optional=optional).verdict
        assert found is (LEGAL if expected else ILLEGAL), (sure, optional)
        relaxed = Relaxation(Key(), sure, optional, Key.initial)
        if search(sure, relaxed).verdict is ILLEGAL:
            assert not expected, (sure, optional)
            strict += 1
    assert min(said.values()) > 50, "a comparison of one kind shows nothing"
    assert strict > 0.9 * said[False], "to take effect repeatedly explains little more"


@pytest.mark.parametrize("seed", range(10))
def test_a_history_that_a_cache_made_is_never_accused(seed: int) -> None:
    rng = random.Random(seed)
    history = run_history(rng, 2_000, processes=rng.randint(2, 8), keys=rng.randint(1, 5))
    assert judge(history).verdict is LEGAL
    assert judge(history, evicts=True).verdict is LEGAL


@pytest.mark.parametrize("seed", range(10))
def test_one_wrong_answer_in_a_long_history_is_found(seed: int) -> None:
    rng = random.Random(seed)
    history = run_history(rng, 500, processes=4)
    last = max(one.return_ns or one.call_ns for one in history)
    truth = op("q", "set", last + 10, last + 20, -1, key="k0")
    lie = op("p0", "get", last + 30, last + 40, result=-7, key="k0")
    assert judge([*history, truth]).verdict is LEGAL
    judged = judge([*history, truth, lie])
    assert judged.verdict is ILLEGAL
    assert judged.counterexample is not None
    assert judged.counterexample.operations in {(lie,), (truth, lie)}


# From Herlihy & Wing (1990), figures 1 and 2 put to a key, and from Wing & Gong (1993).
BOOKS = {
    "a read beside a write may see the old value": (
        [op("a", "set", 0, 1, 1), op("a", "set", 2, 9, 2), op("b", "get", 3, 4, result=1)],
        LEGAL,
    ),
    "or the new one": (
        [op("a", "set", 0, 1, 1), op("a", "set", 2, 9, 2), op("b", "get", 3, 4, result=2)],
        LEGAL,
    ),
    "but not the new one and then the old one (new-old inversion)": (
        [
            op("a", "set", 0, 1, 1),
            op("a", "set", 2, 9, 2),
            op("b", "get", 3, 4, result=2),
            op("c", "get", 5, 6, result=1),
        ],
        ILLEGAL,
    ),
    "a read after a write that is over sees it": (
        [op("a", "set", 0, 1, 1), op("b", "get", 2, 3, result=ABSENT)],
        ILLEGAL,
    ),
    "intervals that touch are concurrent": (
        [op("a", "set", 0, 2, 1), op("b", "get", 2, 3, result=ABSENT)],
        LEGAL,
    ),
    "sequentially consistent is not enough": (
        [
            op("a", "set", 0, 1, 1),
            op("b", "set", 2, 3, 2),
            op("a", "get", 4, 5, result=1),
        ],
        ILLEGAL,
    ),
    "two concurrent writes, seen in one order by both": (
        [
            op("a", "set", 0, 5, 1),
            op("b", "set", 0, 5, 2),
            op("c", "get", 6, 7, result=1),
            op("d", "get", 6, 7, result=1),
        ],
        LEGAL,
    ),
    "two concurrent writes, seen in different orders": (
        [
            op("a", "set", 0, 5, 1),
            op("b", "set", 0, 5, 2),
            op("c", "get", 6, 7, result=1),
            op("d", "get", 8, 9, result=2),
        ],
        ILLEGAL,
    ),
    "a lost update": (
        [
            op("a", "set", 0, 1, 0),
            op("a", "incr", 2, 5, 1, 1),
            op("b", "incr", 2, 5, 1, 1),
        ],
        ILLEGAL,
    ),
    "two winners": (
        [op("a", "add", 0, 5, 1, result=True), op("b", "add", 0, 5, 2, result=True)],
        ILLEGAL,
    ),
    "two winners with a delete between": (
        [
            op("a", "add", 0, 5, 1, result=True),
            op("c", "delete", 0, 5, result=True),
            op("b", "add", 0, 5, 2, result=True),
        ],
        LEGAL,
    ),
    "a deleted key comes back": (
        [
            op("a", "set", 0, 1, 1),
            op("b", "delete", 2, 3, result=True),
            op("c", "get", 4, 5, result=1),
        ],
        ILLEGAL,
    ),
    "an unanswered write takes effect much later": (
        [
            op("a", "set", 0, 1, 1),
            op("b", "set", 2, None, 2),
            op("c", "get", 10, 11, result=1),
            op("c", "get", 12, 13, result=2),
        ],
        LEGAL,
    ),
    "but once it has, it does not go again": (
        [
            op("a", "set", 0, 1, 1),
            op("b", "set", 2, None, 2),
            op("c", "get", 10, 11, result=2),
            op("c", "get", 12, 13, result=1),
        ],
        ILLEGAL,
    ),
    "a write that failed is never seen": (
        [
            op("a", "set", 0, 1, 1, outcome=Outcome.FAIL),
            op("c", "get", 10, 11, result=1),
        ],
        ILLEGAL,
    ),
    "an unanswered increment counts once at most": (
        [
            op("a", "set", 0, 1, 5),
            op("b", "incr", 2, None, 1),
            op("c", "incr", 10, 11, 1, 7),
            op("c", "incr", 12, 13, 1, 9),
        ],
        ILLEGAL,
    ),
    "touch of a key that was set says yes": (
        [op("a", "set", 0, 1, 1), op("b", "touch", 2, 3, result=False)],
        ILLEGAL,
    ),
    "nothing at all": ([], LEGAL),
}


@pytest.mark.parametrize(("history", "expected"), BOOKS.values(), ids=list(BOOKS))
def test_histories_from_books(history: list[Operation], expected: Verdict) -> None:
    assert judge(history).verdict is expected
    assert explained(history, evicts=False) is (expected is LEGAL)


def test_a_value_that_nobody_wrote_is_a_counterexample_by_itself() -> None:
    lie = op("b", "get", 4, 5, result=7)
    judged = judge([op("a", "set", 0, 1, 1), op("a", "set", 2, 3, 2), lie])
    assert judged.counterexample is not None
    assert judged.counterexample.operations == (lie,)
    assert judged.counterexample.why == "no operation wrote this value"


def test_a_miss_is_excused_where_entries_may_be_evicted() -> None:
    lost = [op("a", "set", 0, 1, 1), op("b", "get", 2, 3, result=ABSENT)]
    back = [*lost, op("b", "get", 4, 5, result=1)]
    assert judge(lost).verdict is ILLEGAL
    assert judge(lost, evicts=True).verdict is LEGAL
    assert judge(back, evicts=True).verdict is ILLEGAL, "what was evicted does not come back"


def test_a_spent_budget_is_never_success() -> None:
    history = run_history(random.Random(1), 200)
    judged = judge(history, budget=50)
    assert judged.verdict is Verdict.UNKNOWN
    assert judged.unknown == ("k0",)
    assert judged.counterexample is None


def test_hundreds_of_unanswered_writes_do_not_outlast_the_budget() -> None:
    rng = random.Random(1)
    unanswered = [op(f"u{n}", "set", n, None, 10_000 + n) for n in range(300)]
    history = [*run_history(rng, 300), *unanswered]
    last = max(one.call_ns for one in history)
    lie = op("p0", "get", last + 100, last + 200, result=-1, key="k0")
    began = time.process_time()
    own = by_key([one for one in [*history, lie] if one.key in {"k", "k0"}])
    together = [dataclasses.replace(one, key="k") for each in own.values() for one in each]
    assert judge(together).verdict in {Verdict.UNKNOWN, ILLEGAL}
    assert time.process_time() - began < 60


def test_one_illegal_key_outweighs_the_unknown_ones() -> None:
    history = [
        *run_history(random.Random(1), 200),
        op("a", "set", 0, 1, 1, key="bad"),
        op("a", "get", 2, 3, result=2, key="bad"),
    ]
    judged = judge(history, budget=50)
    assert judged.verdict is ILLEGAL
    assert (judged.illegal, judged.unknown) == (("bad",), ("k0",))


def test_an_operation_must_end_after_it_began() -> None:
    with pytest.raises(ValueError, match="returned before it was called"):
        op("a", "get", 5, 4, result=1)
    with pytest.raises(ValueError, match="no return"):
        op("a", "get", 5, None, result=1, outcome=Outcome.OK)
