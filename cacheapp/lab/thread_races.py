"""Races between threads: a counter that loses updates, though one thread executes at a time."""

import sys
from dataclasses import dataclass
from typing import Any

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.interpreters import others
from cacheapp.lab.results import (
    ClaimFinding,
    ClaimVerdict,
    ExperimentOutcome,
    Measure,
    Panel,
    look_of,
)
from cacheapp.lab.timed import thread_races

CLAIM_RACE = "race conditions happen between threads although only one executes at a time"
CLAIM_BARE = "an unprotected `counter += 1` in several threads loses updates"
CLAIM_EXACT = "a lock, or an atomic incr, loses none"
BARE, CALL, LOCK = thread_races.CODES
INCR = "cache.incr (LocMemCache)"
MOST_RUNS = 12
"""Runs of code that can lose updates, until one does: one short run in thirty has no race."""


@dataclass(frozen=True)
class ThreadRaceParameters:
    """Threads, additions of each, additions of each to the slower cache, and repeats."""

    threads: int
    times: int
    cached: int
    repeats: int


PARAMETERS = {
    Scale.SMALL: ThreadRaceParameters(4, 300_000, 500, 1),
    Scale.USUAL: ThreadRaceParameters(8, 200_000, 10_000, 3),
    Scale.FULL: ThreadRaceParameters(10, 1_000_000, 50_000, 5),
}


@dataclass(frozen=True)
class Loss:
    """The additions lost in each run of one code, with one interpreter."""

    code: str
    python: str
    added: int
    lost: tuple[int, ...]


def conduct(bench: Bench) -> ExperimentOutcome:
    """Count with each code, then with the unprotected ones in every other Python on PATH."""
    plan, elsewhere = PARAMETERS[bench.scale], others() if bench.scale is not Scale.SMALL else ()
    bench.expect(plan.repeats * 4 + 2 * len(elsewhere) + 1)
    with bench.step("what the interpreter executes"):
        steps = bench.measure(thread_races.steps)
    here = [
        _loss(bench, plan, code, plan.repeats, at_most=MOST_RUNS if code == CALL else 0)
        for code in thread_races.CODES
    ]
    here.append(_loss_with_incr(bench, plan))
    there = [_loss(bench, plan, code, 1, one.path) for one in elsewhere for code in (BARE, CALL)]
    return ExperimentOutcome(
        judge(here),
        (
            _panel(f"lost of {plan.threads} x {plan.times:,} additions", here, plan),
            *([_panel("the same in other Pythons, unprotected", there, plan)] if there else []),
        ),
        (
            (
                "The cause: the statement has several steps, and the interpreter may switch to another "
                "thread between reading and writing. It checks for a switch at calls and at the ends "
                "of loops; since Python 3.10 no longer between the steps of `counter += 1`, which "
                f"are {steps}."
            ),
            "Nothing was slowed down or tuned: sys.getswitchinterval() is its default, 5 ms.",
            *_notes_of(there),
        ),
    )


def _loss(
    bench: Bench,
    plan: ThreadRaceParameters,
    code: str,
    repeats: int,
    python: str = sys.executable,
    at_most: int = 0,
) -> Loss:
    """Run it `repeats` times, and then up to `at_most` times until a run loses updates."""
    found: list[dict[str, Any]] = []
    while len(found) < repeats or (len(found) < at_most and not any(one["lost"] for one in found)):
        with bench.step(code):
            given = (code, plan.threads, plan.times)
            found.append(bench.measure(thread_races.lost, *given, python=python))
    lost = tuple(one["lost"] for one in found)
    return Loss(code, found[0]["python"], plan.threads * plan.times, lost)


def _loss_with_incr(bench: Bench, plan: ThreadRaceParameters) -> Loss:
    found = []
    for _ in range(plan.repeats):
        with bench.step(INCR):
            found.append(bench.measure(thread_races.lost_with_incr, plan.threads, plan.cached))
    lost = tuple(one["lost"] for one in found)
    return Loss(INCR, found[0]["python"], plan.threads * plan.cached, lost)


def judge(here: list[Loss]) -> tuple[ClaimFinding, ...]:
    """Return which codes lost additions in this interpreter."""
    by_code = {one.code: one for one in here}
    unprotected = [by_code[BARE], by_code[CALL]]
    lossy = any(sum(one.lost) for one in unprotected)
    bare = sum(by_code[BARE].lost)
    protected = [by_code[LOCK], by_code[INCR]]
    exact = not any(sum(one.lost) for one in protected)
    verdicts = {True: ClaimVerdict.HOLDS, False: ClaimVerdict.DOES_NOT_HOLD}
    # One run without a loss does not prove that there is none.
    raced = ClaimVerdict.HOLDS if lossy else ClaimVerdict.UNKNOWN
    return (
        ClaimFinding(
            CLAIM_RACE,
            raced,
            "; ".join(map(_describe, unprotected)),
            figure=_most_lost(unprotected) if lossy else "no loss in this run",
        ),
        ClaimFinding(
            CLAIM_BARE,
            verdicts[bool(bare)],
            _describe(by_code[BARE]),
            figure=_most_lost([by_code[BARE]]),
        ),
        ClaimFinding(
            CLAIM_EXACT,
            verdicts[exact],
            "; ".join(map(_describe, protected)),
            figure=_most_lost(protected),
        ),
    )


def _most_lost(losses: list[Loss]) -> str:
    worst = max(losses, key=lambda one: max(one.lost) / one.added)
    return f"{max(worst.lost):,} of {worst.added:,} additions lost"


def _describe(one: Loss) -> str:
    lost = ", ".join(f"{it:,}" for it in one.lost)
    return f"`{one.code}` lost {lost} of {one.added:,} (Python {one.python})"


def _panel(title: str, losses: list[Loss], plan: ThreadRaceParameters) -> Panel:
    """Draw the lost share: the slower `incr` is called less often."""
    several = len({one.python for one in losses}) > 1
    return Panel(
        title,
        "%",
        tuple(
            Measure(
                _label(one, plan),
                tuple(100 * lost / one.added for lost in one.lost),
                group=f"Python {one.python}" if several else "",
                look=look_of(one.lost, 0),
            )
            for one in losses
        ),
        expected=0.0,
    )


def _label(one: Loss, plan: ThreadRaceParameters) -> str:
    fewer = f", of {plan.threads} x {plan.cached:,}" if one.code == INCR else ""
    return f"{one.code}{fewer}"


def _notes_of(there: list[Loss]) -> tuple[str, ...]:
    free = [one for one in there if "without GIL" in one.python]
    if free:
        return ()
    return ("No free-threaded Python (python3.13t, python3.14t, …) was found on PATH.",)


EXPERIMENT = Experiment(
    name="thread-races",
    title="Races between threads",
    claims=(CLAIM_RACE, CLAIM_BARE, CLAIM_EXACT),
    code="counter = 0\n\n\n"
    + listing(
        thread_races.bare,
        thread_races.plus,
        thread_races.with_a_call,
        thread_races.with_a_lock,
        thread_races.lost_with_incr,
    ),
    conduct=conduct,
)
