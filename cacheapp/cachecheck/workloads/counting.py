"""Increments and races for one key: no update lost, no two equal sums, one winner of `add`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, plain, with_proof
from cacheapp.cachecheck.workloads.registers import LEAST
from cacheapp.consistency.counterexample import shrink
from cacheapp.consistency.decision import decide
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome, by_key
from cacheapp.consistency.models import EvictingKey, Key
from cacheapp.consistency.search import Verdict

INCREMENTS = 400
"""The most of each session."""
_FIRST = 0, 1_000_000
"""Where counting up and counting down begin."""
ROUNDS = 40
_ROUND_NS = 5_000_000

SUMS, WINNER = "no increment lost", "one winner of add"


def count(session: ClientSession, keys: Sequence[str], seconds: float) -> None:
    """Add 1 to the first key, and subtract 1 from the second if there is one, repeatedly."""
    deadline = until_s(seconds)
    for number in range(INCREMENTS):
        if number >= LEAST and clock.monotonic_s() > deadline:
            return
        session.incr(keys[0])
        for key in keys[1:]:
            session.decr(key)


def create(session: ClientSession, keys: Sequence[str]) -> None:
    """Let one session set the counters."""
    if session.number == 0:
        for key, first in zip(keys, _FIRST, strict=False):
            session.set(key, first)


def read(session: ClientSession, keys: Sequence[str]) -> None:
    """Let every session read."""
    for key in keys:
        session.get(key)


def counters(run: CheckRun) -> list[PropertyFinding]:
    """Count one key up and one down from all sessions at once, then read both in each."""
    keys = run.keys("counter", 2 if "decr" in run.abilities else 1)
    run.work(create, keys)
    run.work(count, keys, run.seconds)
    run.work(read, keys)
    history = by_key(run.history())
    counted = [
        _counted(history.get(key, []), first) for key, first in zip(keys, _FIRST, strict=False)
    ]
    lost, done = sum(one.lost for one in counted), sum(one.done for one in counted)
    wrong = [text for one in counted for text in one.wrong]
    answered = all(one.done for one in counted)
    finding = plain(
        SUMS,
        wrong,
        f"{lost} of {done} lost",
        unanswered="" if answered else run.first_error() or "no answers",
    )
    if not wrong:
        return [finding]
    broken = next(key for key, one in zip(keys, counted, strict=True) if one.wrong)
    own, model = history[broken], EvictingKey() if run.evicts else Key()
    judged = decide(own, model)
    illegal = judged.verdict is Verdict.ILLEGAL
    return [with_proof(finding, shrink(own, model, judged) if illegal else None)]


@dataclass(frozen=True)
class _Counted:
    """What became of the calls on one counter: violations, calls that a reader misses, answered calls."""

    wrong: list[str]
    lost: int
    done: int


def _counted(history: Sequence[Operation], first: int) -> _Counted:
    """Judge one counter, which began with `first`, by how far from there each result is."""
    calls = [one for one in history if one.kind in {OperationKind.INCR, OperationKind.DECR}]
    done = [one for one in calls if one.outcome is Outcome.OK]
    unknown = sum(one.outcome is Outcome.INFO for one in calls)
    what = "decrements" if first else "increments"
    wrong = []
    refused = sum(one.result is ABSENT for one in done)
    if refused:
        wrong.append(f"{refused} {what} failed because the key was missing")
    sums = Counter(one.result for one in done if one.result is not ABSENT)
    again = sum(sums.values()) - len(sums)
    if again:
        wrong.append(f"{again} {what} returned the same sum as another one")
    acknowledged = len(done) - refused
    numbers = [
        one.result if isinstance(one.result, int) else first
        for one in history
        if one.kind is OperationKind.GET and one.outcome is Outcome.OK
    ]
    steps = [abs(number - first) for number in numbers]
    if any(not acknowledged <= count <= acknowledged + unknown for count in steps):
        seen = ", ".join(map(str, sorted(set(numbers))))
        wrong.append(
            f"after {acknowledged} acknowledged {what} from {first} the threads read {seen}"
        )
    return _Counted(
        wrong, max([0, *(acknowledged - count for count in steps)]) + refused, len(done)
    )


def race(session: ClientSession, keys: Sequence[str], start_ns: int) -> None:
    """Add each key at its moment."""
    for number, key in enumerate(keys):
        session.until_ns(start_ns + number * _ROUND_NS)
        session.add(key, session.unique())


def winners(run: CheckRun) -> list[PropertyFinding]:
    """Add the same key from all sessions at the same moment, in rounds."""
    keys = run.keys("race", ROUNDS)
    run.work(race, keys, clock.monotonic_ns() + 60_000_000)
    history = by_key(run.history())
    won = {key: sum(one.result is True for one in own) for key, own in history.items()}
    contenders = max((len(own) for own in history.values()), default=0)
    double = [key for key, count in won.items() if count > 1]
    none = [
        key
        for key, own in history.items()
        if own and not won[key] and all(one.outcome is Outcome.OK for one in own)
    ]
    wrong = [f"{len(double)} of {len(won)} keys had more than one winner"] if double else []
    wrong += [f"{len(none)} of {len(won)} keys had none"] if none else []
    most = max(won.values(), default=0)
    figure = f"{most if double else min(won.values(), default=0)} of {contenders} won"
    finding = plain(
        WINNER, wrong, figure, unanswered="" if any(won.values()) else run.first_error()
    )
    bad = [*double, *none]
    return [with_proof(finding, shrink(history[bad[0]], Key()) if bad else None)]
