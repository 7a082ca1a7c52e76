"""What is said of given figures, the cases in which a claim does not hold among them."""

import dataclasses
from typing import Any

import pytest

from cacheapp.lab import (
    computing,
    not_shared,
    process_races,
    starting,
    thread_races,
    too_many,
    waiting,
    what_breaks,
)
from cacheapp.lab.bench import Bench
from cacheapp.lab.results import ClaimVerdict
from cacheapp.lab.timed import thread_races as timed

HOLDS, DOES_NOT, UNKNOWN = ClaimVerdict.HOLDS, ClaimVerdict.DOES_NOT_HOLD, ClaimVerdict.UNKNOWN


def times(alone: float, threads: float) -> list[waiting.Times]:
    took = {"one by one": alone, "threads": threads, "processes": 5.2, "asyncio": 5.0}
    return [waiting.Times(way, (it, it, it)) for way, it in took.items()]


@pytest.mark.parametrize(
    ("alone", "threads", "verdict"),
    [(25.1, 5.01, HOLDS), (25.1, 6.3, DOES_NOT), (9.0, 5.0, UNKNOWN)],
    ids=["as claimed", "threads wait for each other", "the origin was fast"],
)
def test_waiting(alone: float, threads: float, verdict: ClaimVerdict) -> None:
    finding = waiting.judge("5 of 5 s", times(alone, threads), 5, 5.0)
    assert finding.verdict is verdict
    assert f"{alone:.2f} s one by one and {threads:.2f} s by threads" in finding.why


@pytest.mark.parametrize(
    ("threads", "verdict"), [(4.1, HOLDS), (3.6, HOLDS), (2.1, DOES_NOT)], ids=str
)
def test_threads_that_compute(threads: float, verdict: ClaimVerdict) -> None:
    assert computing.judge_threads(4.0, threads, 8).verdict is verdict


@pytest.mark.parametrize(
    ("took", "cores", "verdict"),
    [
        ({1: 4.0, 2: 2.1, 4: 2.1}, 2, HOLDS),
        ({1: 4.0, 2: 3.9, 4: 3.9}, 2, DOES_NOT),
        ({1: 4.0, 2: 2.4, 4: 1.2}, 2, DOES_NOT),
        ({1: 4.0, 2: 4.0}, 1, UNKNOWN),
    ],
    ids=["as claimed", "of no use", "more than cores still help", "one core"],
)
def test_processes_that_compute(took: dict[int, float], cores: int, verdict: ClaimVerdict) -> None:
    assert computing.judge_processes(4.0, took, cores).verdict is verdict


def test_each_claim_about_times_says_what_a_busy_machine_can_cause() -> None:
    """Counts say nothing of the kind: a lost addition is lost, however long it took."""
    level = too_many.Level("threads", "waiting", 1, (1.0,), (1.0,), (1.0,), (1.0,))
    on_times = [
        waiting.judge("", times(25.1, 5.01), 5, 5.0),
        computing.judge_threads(4.0, 4.1, 8),
        computing.judge_processes(4.0, {2: 2.1}, 2),
        starting.judge_longer({"thread": 0.03, "fork": 2.0}),
        starting.judge_zero({5: 0.2}),
        too_many.judge("threads", [level, dataclasses.replace(level, members=9)]),
    ]
    assert all(finding.load_causes for finding in on_times)
    on_counts = [
        *thread_races.judge(thread_losses(0, 400, 0, 0)),
        *process_races.judge(process_losses(900, 300, 0)),
        *not_shared.judge(reads(4, 1)),
        *what_breaks.judge(counts(20.0, 5.0, 44.0)),
    ]
    assert not any(finding.load_causes for finding in on_counts)
    assert all(finding.figure for finding in (*on_times, *on_counts))


def test_a_process_takes_longer_than_a_thread_only_if_every_kind_does() -> None:
    took = {"thread": 0.03, "fork": 2.0, "forkserver": 8.0, "spawn": 70.0}
    assert starting.judge_longer(took).verdict is HOLDS
    assert "fork 2.00 ms (67 times)" in starting.judge_longer(took).why
    assert starting.judge_longer({**took, "fork": 0.02}).verdict is DOES_NOT


@pytest.mark.parametrize(("ms", "verdict"), [(0.4, HOLDS), (4.9, HOLDS), (5.1, DOES_NOT)], ids=str)
def test_creating_threads_takes_zero_in_two_digits(ms: float, verdict: ClaimVerdict) -> None:
    assert starting.judge_zero({5: 0.2, 10: ms}).verdict is verdict


def level(members: int, per_second: float, mean_s: float) -> too_many.Level:
    return too_many.Level(
        "threads", "waiting", members, (per_second,), (mean_s,), (mean_s,), (10.0,)
    )


@pytest.mark.parametrize(
    ("most", "verdict"),
    [
        (level(1000, 2000.0, 0.5), HOLDS),
        (level(1000, 700.0, 0.06), HOLDS),
        (level(1000, 20_000.0, 0.05), DOES_NOT),
    ],
    ids=["each takes long", "less gets done", "all is well"],
)
def test_too_many(most: too_many.Level, verdict: ClaimVerdict) -> None:
    finding = too_many.judge("threads", [level(1, 20.0, 0.05), level(100, 1900.0, 0.05), most])
    assert finding.verdict is verdict
    assert "a second with 100" in finding.why or "a second with 1000" in finding.why


def thread_losses(bare: int, call: int, lock: int, incr: int) -> list[thread_races.Loss]:
    codes = {thread_races.BARE: bare, thread_races.CALL: call}
    codes |= {thread_races.LOCK: lock, thread_races.INCR: incr}
    return [thread_races.Loss(code, "3.11.7", 1000, (0, lost)) for code, lost in codes.items()]


@pytest.mark.parametrize(
    ("lost", "verdicts"),
    [
        ((0, 400, 0, 0), [HOLDS, DOES_NOT, HOLDS]),
        ((300, 400, 0, 0), [HOLDS, HOLDS, HOLDS]),
        ((0, 0, 0, 0), [UNKNOWN, DOES_NOT, HOLDS]),
        ((0, 400, 0, 1), [HOLDS, DOES_NOT, DOES_NOT]),
    ],
    ids=["a call is needed", "even bare", "no race at all", "incr loses"],
)
def test_races_between_threads(
    lost: tuple[int, int, int, int], verdicts: list[ClaimVerdict]
) -> None:
    findings = thread_races.judge(thread_losses(*lost))
    assert [finding.verdict for finding in findings] == verdicts


@pytest.mark.parametrize(
    ("found", "runs"), [([7, 0, 0], 3), ([0, 0, 0, 0, 9, 9], 5), ([0] * 99, thread_races.MOST_RUNS)]
)
def test_a_race_is_looked_for_until_one_happens_or_for_twelve_runs(
    monkeypatch: pytest.MonkeyPatch, found: list[int], runs: int
) -> None:
    bench = Bench("thread-races")
    losses = iter(found)

    def measure(function: Any, *given: Any, **_: Any) -> Any:
        if function is timed.steps:
            return "LOAD_NAME"
        lost = next(losses) if given[0] == thread_races.CALL else 0
        return {"lost": lost, "python": "3.11.7"}

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(thread_races, "others", list)
    outcome = thread_races.conduct(bench)
    by_code = {measure.label: measure.samples for measure in outcome.panels[0].measures}
    shares = [100 * lost / (8 * 200_000) for lost in found[:runs]]
    assert by_code[thread_races.CALL] == pytest.approx(shares)
    assert len(by_code[thread_races.BARE]) == 3
    assert outcome.findings[0].verdict is (HOLDS if any(found) else UNKNOWN)


def process_losses(file: int, get_set: int, incr: int) -> list[process_races.Loss]:
    return [
        process_races.Loss(process_races.VARIABLE, "", 1000, (1000,)),
        process_races.Loss(process_races.FILE, "", 1000, (file,)),
        process_races.Loss(process_races.LOCKED, "", 1000, (0,)),
        process_races.Loss(process_races.GET_SET, "lmdb", 1000, (get_set,)),
        process_races.Loss(process_races.INCR, "lmdb", 1000, (incr,)),
    ]


@pytest.mark.parametrize(
    ("lost", "verdicts"),
    [
        ((900, 300, 0), [DOES_NOT, HOLDS]),
        ((0, 0, 0), [UNKNOWN, HOLDS]),
        ((900, 300, 1), [DOES_NOT, DOES_NOT]),
    ],
    ids=["they race", "none was seen", "incr loses"],
)
def test_races_between_processes(lost: tuple[int, int, int], verdicts: list[ClaimVerdict]) -> None:
    findings = process_races.judge(process_losses(*lost))
    assert [finding.verdict for finding in findings] == verdicts


def reads(own: int, shared: int) -> list[not_shared.AliasReads]:
    return [
        not_shared.AliasReads("locmem", (5 - own,), (own,)),
        not_shared.AliasReads("lmdb", (5 - shared,), (shared,)),
    ]


@pytest.mark.parametrize(
    ("own", "shared", "verdicts"),
    [(4, 1, [HOLDS, HOLDS]), (1, 1, [DOES_NOT, HOLDS]), (4, 2, [HOLDS, DOES_NOT])],
    ids=["as claimed", "one worker only", "a shared one that is not"],
)
def test_memory_is_not_shared(own: int, shared: int, verdicts: list[ClaimVerdict]) -> None:
    findings = not_shared.judge(reads(own, shared))
    assert [finding.verdict for finding in findings] == verdicts


def counts(own: float, shared: float, get_set: float) -> list[what_breaks.Count]:
    use = what_breaks.USES[0]
    return [
        what_breaks.Count(use, "locmem", True, (own,)),  # noqa: FBT003
        what_breaks.Count(use, "lmdb", True, (5.0, shared)),  # noqa: FBT003
        what_breaks.Count(use, "lmdb", False, (get_set,)),  # noqa: FBT003
    ]


@pytest.mark.parametrize(
    ("counted", "verdicts"),
    [
        ((20.0, 5.0, 44.0), [HOLDS, HOLDS, HOLDS]),
        ((5.0, 5.0, 44.0), [DOES_NOT, HOLDS, HOLDS]),
        ((20.0, 6.0, 44.0), [HOLDS, DOES_NOT, HOLDS]),
        ((20.0, 5.0, 5.0), [HOLDS, HOLDS, UNKNOWN]),
    ],
    ids=["as claimed", "own caches are right", "the shared one is wrong", "get + set was right"],
)
def test_what_breaks(counted: tuple[float, float, float], verdicts: list[ClaimVerdict]) -> None:
    findings = what_breaks.judge(counts(*counted))
    assert [finding.verdict for finding in findings] == verdicts
