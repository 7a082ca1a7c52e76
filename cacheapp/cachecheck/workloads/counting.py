"""Increments and races for one key: no update lost, no two equal sums, one winner of `add`."""

from collections import Counter
from collections.abc import Sequence

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
ROUNDS = 40
_ROUND_NS = 5_000_000

SUMS, WINNER = "no increment lost", "one winner of add"


def count_up(session: ClientSession, key: str, seconds: float) -> None:
    """Add 1 repeatedly."""
    deadline = until_s(seconds)
    for number in range(INCREMENTS):
        if number >= LEAST and clock.monotonic_s() > deadline:
            return
        session.incr(key)


def create(session: ClientSession, key: str) -> None:
    """Let one session set the counter to 0."""
    if session.number == 0:
        session.set(key, 0)


def read(session: ClientSession, key: str) -> None:
    """Let every session read."""
    session.get(key)


def counters(run: CheckRun) -> list[PropertyFinding]:
    """Increment from all sessions at once, then read the sum in each."""
    (key,) = run.keys("counter", 1)
    run.work(create, key)
    run.work(count_up, key, run.seconds)
    run.work(read, key)
    history = run.history()
    counted = [one for one in history if one.kind is OperationKind.INCR]
    done = [one for one in counted if one.outcome is Outcome.OK]
    unknown = sum(one.outcome is Outcome.INFO for one in counted)
    wrong, lost = _wrong_sums(history, done, unknown)
    figure = f"{lost} of {len(done)} lost"
    finding = plain(
        SUMS, wrong, figure, unanswered="" if done else run.first_error() or "no answers"
    )
    if not wrong:
        return [finding]
    own, model = by_key(history)[key], EvictingKey() if run.evicts else Key()
    judged = decide(own, model)
    illegal = judged.verdict is Verdict.ILLEGAL
    return [with_proof(finding, shrink(own, model, judged) if illegal else None)]


def _wrong_sums(
    history: Sequence[Operation], done: Sequence[Operation], unknown: int
) -> tuple[list[str], int]:
    """Return the violations, and the largest number of increments that a reader misses."""
    wrong = []
    refused = sum(one.result is ABSENT for one in done)
    if refused:
        wrong.append(f"{refused} increments failed because the key was missing")
    sums = Counter(one.result for one in done if one.result is not ABSENT)
    again = sum(sums.values()) - len(sums)
    if again:
        wrong.append(f"{again} increments returned the same sum as another one")
    acknowledged = len(done) - refused
    read = [
        one.result for one in history if one.kind is OperationKind.GET and one.outcome is Outcome.OK
    ]
    numbers = [result if isinstance(result, int) else 0 for result in read]
    if any(not acknowledged <= number <= acknowledged + unknown for number in numbers):
        seen = ", ".join(map(str, sorted(set(numbers))))
        wrong.append(f"after {acknowledged} acknowledged increments the sessions read {seen}")
    return wrong, max([0, *(acknowledged - number for number in numbers)]) + refused


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
