import random
import re
import xml.etree.ElementTree as ET

import pytest

from cacheapp.consistency.counterexample import shrink
from cacheapp.consistency.drawing import svg
from cacheapp.consistency.history import ABSENT, Outcome, by_key
from cacheapp.consistency.judge import judge
from cacheapp.consistency.models import Key
from cacheapp.consistency.search import Verdict, search
from cacheapp.consistency.sessions import monotonic_reads, read_your_writes, stale_reads
from cacheapp.consistency.timeline import draw, lane_name, moments
from tests.unit.consistency.broken_caches import BROKEN, Right, played
from tests.unit.consistency.histories import explained, op, random_history, run_history


def test_of_a_long_history_two_operations_are_left() -> None:
    history = run_history(random.Random(3), 300, processes=4)
    last = max(one.return_ns or one.call_ns for one in history)
    old = op("a", "set", last + 1, last + 2, -1_000, key="k0")
    new = op("b", "set", last + 10, last + 20, -2_000, key="k0")
    stale = op("c", "get", last + 30, last + 40, result=-1_000, key="k0")
    found = judge([*history, old, new, stale]).counterexample
    assert found is not None
    assert found.operations == (new, stale)
    assert found.origins == (old,)
    assert found.omitted == len(by_key(history)["k0"]) + 1


def test_two_equal_sums_are_shown_without_the_increments_before() -> None:
    sums = [op("a", "incr", 10 * n, 10 * n + 5, 1, n) for n in range(1, 60)]
    twice = op("b", "incr", 592, 596, 1, 59)
    found = judge([op("a", "set", 0, 5, 0), *sums, twice]).counterexample
    assert found is not None
    assert found.operations == (sums[-1], twice)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_is_illegal_and_nothing_can_be_left_out(seed: int) -> None:
    rng = random.Random(seed)
    shrunk = 0
    for _ in range(400):
        own = by_key(random_history(rng, rng.randint(3, 6))).get("k", [])
        if search(own, Key()).verdict is not Verdict.ILLEGAL:
            continue
        found = shrink(own, Key())
        shrunk += 1
        assert not explained(found.operations, evicts=False)
        assert {one.call_ns for one in found.operations} <= {one.call_ns for one in own}
        assert found.omitted == len(own) - len(found.operations)
    assert shrunk > 50


def test_a_write_that_could_explain_an_answer_is_never_left_out() -> None:
    # Without the second set the first read would look like a resurrection.
    history = [
        op("a", "set", 0, 1, 1),
        op("a", "delete", 2, 3, result=True),
        op("b", "set", 4, 5, 1),
        op("c", "get", 6, 7, result=1),
        op("c", "get", 8, 9, result=ABSENT),
    ]
    found = shrink(history, Key())
    assert [one.label for one in found.operations] == ["get -> 1", "get -> miss"]


@pytest.mark.parametrize("kind", BROKEN, ids=[kind.__name__ for kind in BROKEN])
def test_what_a_broken_cache_did_is_shown_by_a_few_calls(kind: type[Right]) -> None:
    sizes: list[int] = []
    seed = 0
    while len(sizes) < 3:
        judged = judge(played(kind, seed))
        if judged.counterexample is not None:
            sizes.append(len(judged.counterexample.operations))
            rest = list(judged.counterexample.operations)
            assert search(rest, Key(), initial=Key.unsure).verdict is Verdict.ILLEGAL
        seed += 1
    assert sorted(sizes)[1] <= 4, sizes


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_of_a_thousand_broken_caches_nearly_all_are_shown_by_six_calls_at_most() -> None:
    judged = [judge(played(kind, seed)) for kind in BROKEN for seed in range(1_000, 1_130)]
    sizes = [len(one.counterexample.operations) for one in judged if one.counterexample]
    assert len(sizes) > 1_000
    assert sum(size <= 6 for size in sizes) >= 0.95 * len(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_a_right_cache_has_none(seed: int) -> None:
    assert judge(played(Right, seed)).verdict is Verdict.LINEARIZABLE


def test_a_long_call_among_forty_others_does_not_make_the_proof_longer() -> None:
    sums = [op("b", "incr", 10 * n, 10 * n + 5, 1, n) for n in range(1, 41)]
    slow = op("a", "incr", 1, 1_000, 1, 20)
    found = judge([op("b", "set", 0, 0, 0), *sums, slow]).counterexample
    assert found is not None
    assert set(found.operations) == {slow, sums[19]}


def test_the_reason_says_if_the_proof_needs_that_the_key_was_new() -> None:
    new = judge([op("a", "delete", 0, 1, result=True)]).counterexample
    stale = judge(
        [op("a", "set", 0, 1, 1), op("a", "set", 2, 3, 2), op("b", "get", 4, 5, result=1)]
    ).counterexample
    assert new is not None
    assert new.why.startswith("the key was absent at first, and nothing that was called before")
    assert stale is not None
    assert stale.why.startswith("no order of these 2 calls explains their answers")


def test_two_winners_are_shown_by_two_calls_without_the_reads_of_their_values() -> None:
    adds = [op("a", "add", 0, 3, 1, result=True), op("b", "add", 1, 4, 2, result=True)]
    reads = [op("a", "get", 5, 6, result=1), op("b", "get", 7, 8, result=2)]
    found = judge([*adds, *reads]).counterexample
    assert found is not None
    assert (found.operations, found.origins) == (tuple(adds), ())


def test_a_legal_history_has_no_counterexample() -> None:
    with pytest.raises(ValueError, match="expected an illegal one"):
        shrink([op("a", "set", 0, 1, 1)], Key())


# -- sessions ----------------------------------------------------------------------------------

OLD = [op("a", "set", 0, 1, 1), op("a", "set", 2, 3, 2)]


def test_a_process_that_reads_behind_its_own_write_is_found() -> None:
    history = [*OLD, op("a", "get", 4, 5, result=1)]
    broken = read_your_writes(history)
    assert [(one.before, one.read) for one in broken] == [(OLD[1], history[2])]
    assert read_your_writes([*OLD, op("b", "get", 4, 5, result=1)]) == []


def test_a_process_whose_reads_go_back_is_found() -> None:
    history = [*OLD, op("b", "get", 4, 5, result=2), op("b", "get", 6, 7, result=1)]
    assert [one.read for one in monotonic_reads(history)] == [history[3]]
    assert monotonic_reads([*OLD, op("b", "get", 4, 5, result=1)]) == []


def test_a_replica_that_lags_keeps_the_weaker_promises() -> None:
    lagging = [*OLD, op("b", "get", 4, 5, result=1), op("b", "get", 6, 7, result=2)]
    assert judge(lagging).verdict is Verdict.ILLEGAL
    assert read_your_writes(lagging) == monotonic_reads(lagging) == []
    assert stale_reads(lagging) == (1, 2)


def test_a_miss_behind_the_own_write_is_excused_only_by_eviction() -> None:
    history = [*OLD, op("a", "get", 4, 5, result=ABSENT)]
    assert len(read_your_writes(history)) == 1
    assert read_your_writes(history, evicts=True) == []
    assert stale_reads(history) == (1, 1)
    assert stale_reads(history, evicts=True) == (0, 1)


@pytest.mark.parametrize("seed", range(10))
def test_a_history_with_an_order_keeps_every_weaker_promise(seed: int) -> None:
    history = run_history(random.Random(seed), 1_000, processes=6, keys=3)
    assert read_your_writes(history) == monotonic_reads(history) == []
    assert stale_reads(history)[0] == 0


# -- pictures ----------------------------------------------------------------------------------


def test_a_timeline_has_a_lane_for_each_process_and_shows_what_overlapped() -> None:
    history = [
        op("p1", "set", 0, 10, 5),
        op("p2", "get", 5, 15, result=5),
        op("p1", "get", 20, 30, result=ABSENT),
    ]
    first, second = draw(history).splitlines()
    assert first.startswith("process 1  ├")
    assert second.startswith("process 2  ")
    assert re.search(r"├─* set 5 ─*┤ *├─* get -> miss ✗ ─*┤", first)
    assert "├ get -> 5 " in second
    assert second.index("├") < first.index("┤") < second.index("┤") < first.rindex("├")


def test_a_timeline_has_the_times_of_calls_and_returns_where_there_is_room() -> None:
    history = [
        op("p1", "set", 2_000_000, 2_250_000, 5),
        op("p2", "get", 2_250_100, 3_000_000, result=5),
        op("p1", "set", 3_500_000, None, 6),
    ]
    first, second, axis = draw(history, axis=True).splitlines()
    assert axis.startswith("time in ms  0.000")
    assert axis.split()[3:] == ["0.000", "0.250", "1.000"]
    assert axis.index("0.000") == first.index("├")
    assert axis.index("0.250") == first.index("┤")
    assert axis.index("1.000") == second.index("┤")


def test_what_was_never_answered_has_no_right_end() -> None:
    lines = draw([op("p1", "set", 0, None, 5), op("p2", "get", 5, 15, result=5)]).splitlines()
    assert "┤" not in lines[0]
    assert "set 5 ?" in lines[0]
    assert moments([op("p1", "set", 0, None, 5)]) == [
        "    0.000 to         ? ms  process 1  set 5 ?"
    ]


def test_the_drawing_is_good_xml_and_escapes_what_is_in_it() -> None:
    history = [op("<p1>", "set", 0, 10, "a&b"), op("p2", "set", 0, None, 1, outcome=Outcome.INFO)]
    drawn = ET.fromstring(svg(history, "stale & <old>", "note"))  # noqa: S314 (our own)
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:5] == ["stale & <old>", "<p1>", "set a&b", "process 2", "set 1 ?"]
    assert texts[5:] == ["0.000 ms", "0.000 ms", "note"]
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}rect"))) == 3


def test_the_drawing_fits_a_phone_whatever_is_in_it() -> None:
    history = [
        op(f"p{n % 3}.2", "incr", n * 1_000_000, n * 1_000_000 + 900, 1, 80_014_000 + n)
        for n in range(9)
    ]
    drawn = ET.fromstring(svg(history, "default: one order: BROKEN " * 3, "because " * 30))  # noqa: S314
    assert drawn.get("width") == "360"
    for element in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(element.get("x", "0")) + float(element.get("width", "0")) <= 360
    labels = [
        (float(element.get("x", "0")), element.text or "")
        for element in drawn.iter("{http://www.w3.org/2000/svg}text")
        if "->" in (element.text or "")
    ]
    assert len(labels) == 9
    assert all(x >= 14 and x + 7.2 * len(text) <= 360 for x, text in labels)
    assert [text for _, text in labels if text.startswith("✗")] == ["✗ incr 1 -> 80014008"]
    times = [
        (float(element.get("x", "0")), element.text or "")
        for element in drawn.iter("{http://www.w3.org/2000/svg}text")
        if element.get("class") == "time"
    ]
    ends = [x + 6.6 * len(text) for x, text in times]
    assert max(ends) <= 346.1
    assert all(end < x for end, (x, _) in zip(ends[:-1], times[1:], strict=True))


def test_lanes_are_named_for_people() -> None:
    names = [lane_name(name) for name in ("p3.2", "p3", "w1.2", "p2.1-child", "other")]
    assert names == [
        "process 3, thread 2",
        "process 3",
        "worker 1, thread 2",
        "process 2, thread 1, forked child",
        "other",
    ]
