"""Calls of all kinds on a few keys, judged by whether one order explains every result."""

from collections.abc import Sequence

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict, with_proof
from cacheapp.consistency.history import Operation, OperationKind
from cacheapp.consistency.judge import Judgement, judge
from cacheapp.consistency.search import Verdict
from cacheapp.consistency.sessions import (
    Broken,
    monotonic_reads,
    read_your_writes,
    stale_reads,
)
from cacheapp.consistency.timeline import lane_name

KEYS = 6
CALLS = 1_500
"""The most of each session: more calls cost more judging, and find no more."""
ENOUGH = 40
"""The least number of answered calls that a judgement needs."""
LEAST = 2 * ENOUGH
"""The least of each session: the first use of a store may take longer than the whole duration."""

_SHARES = {"get": 45, "set": 20, "add": 10, "delete": 8, "touch": 5, "incr": 8, "decr": 4}
_SIMPLE = {"get": 55, "set": 35, "delete": 10}

ORDER, OWN, FORWARD = "one order", "own writes seen", "reads never go back"
_SAID = {
    OWN: "read something older than its own write",
    FORWARD: "read something older than it had read before",
}


def mixed_calls(
    session: ClientSession, keys: Sequence[str], seconds: float, *, simple: bool = False
) -> None:
    """Make random calls of all kinds; `simple`: only get, set and delete."""
    deadline = until_s(seconds)
    shares = possible(session, _SIMPLE if simple else _SHARES)
    for number in range(CALLS):
        if number >= LEAST and clock.monotonic_s() > deadline:
            return
        one_call(session, session.rng.choice(keys), shares)


def simple_calls(session: ClientSession, keys: Sequence[str], seconds: float) -> None:
    """Get, set and delete: under a fault, a violation is then due to the fault, not to `incr`."""
    mixed_calls(session, keys, seconds, simple=True)


def possible(session: ClientSession, shares: dict[str, int]) -> dict[str, int]:
    """Return the shares of the calls that the cache has."""
    return {call: share for call, share in shares.items() if session.can(call)}


def one_call(session: ClientSession, key: str, shares: dict[str, int] | None = None) -> None:
    """Make one call at random: reads most often."""
    shares = shares or possible(session, _SIMPLE)
    (call,) = session.rng.choices(list(shares), list(shares.values()))
    if call in {"set", "add"}:
        getattr(session, call)(key, session.unique())
    else:
        getattr(session, call)(key)


def registers(run: CheckRun) -> list[PropertyFinding]:
    """Judge calls of all kinds on a few keys."""
    keys = run.keys("register", KEYS)
    run.work(mixed_calls, keys, run.seconds)
    history = run.history()
    run.calls_per_s[run.use_async] = rate(history)
    order = one_order(ORDER, history, run)
    own = read_your_writes(history, evicts=run.evicts)
    back = monotonic_reads(history, evicts=run.evicts)
    return [
        order,
        _session_finding(OWN, own, order, _reads(history, own, "behind an own write")),
        _session_finding(FORWARD, back, order, _reads(history, back, "went back")),
    ]


def _reads(history: Sequence[Operation], broken: Sequence[Broken], how: str) -> str:
    count = sum(one.kind is OperationKind.GET and one.outcome == "ok" for one in history)
    return f"{len(broken):,} of {count:,} reads {how}"


def rate(history: Sequence[Operation]) -> float:
    """Return the number of answered calls per second, of all clients together."""
    ends = [one.return_ns for one in history if one.return_ns is not None]
    if len(ends) < ENOUGH:
        return 0.0
    spent_ns = max(ends) - min(one.call_ns for one in history)
    return len(ends) / max(spent_ns, 1) * 1e9


def one_order(name: str, history: Sequence[Operation], run: CheckRun) -> PropertyFinding:
    """Judge a history; UNKNOWN if too few of its calls were answered."""
    judged = judge(history, evicts=run.evicts)
    stale, reads = stale_reads(history, evicts=run.evicts)
    figure = f"{stale:,} of {reads:,} reads stale"
    if judged.illegal:
        keys = len({one.key for one in history})
        figure = f"{len(judged.illegal)} of {keys} keys, {figure}"
    return with_proof(_order_finding(name, judged, figure, history, run), judged.counterexample)


def _order_finding(
    name: str, judged: Judgement, figure: str, history: Sequence[Operation], run: CheckRun
) -> PropertyFinding:
    if judged.verdict is Verdict.ILLEGAL:
        return PropertyFinding(name, PropertyVerdict.BROKEN, figure)
    answered = sum(one.outcome == "ok" for one in history)
    if not answered or answered < len(history) / 2:
        why = run.first_error() or "no call was answered"
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, figure, why)
    if answered < ENOUGH:
        return PropertyFinding(
            name, PropertyVerdict.UNKNOWN, figure, f"only {answered} calls were answered"
        )
    if judged.verdict is Verdict.UNKNOWN:
        why = f"the budget of the search ran out on {len(judged.unknown)} keys"
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, figure, why)
    return PropertyFinding(name, PropertyVerdict.HOLDS, figure, run.first_error())


def _session_finding(
    name: str, broken: Sequence[Broken], order: PropertyFinding, figure: str
) -> PropertyFinding:
    if broken:
        one = broken[0]
        shown = sorted({one.before, one.read, *one.writers[:1]}, key=lambda each: each.call_ns)
        return PropertyFinding(
            name,
            PropertyVerdict.BROKEN,
            figure,
            f"{lane_name(one.read.process)} {_SAID[name]}",
            tuple(shown),
        )
    if order.verdict is PropertyVerdict.UNKNOWN and "budget" not in order.why:
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, "", order.why)
    return PropertyFinding(name, PropertyVerdict.HOLDS, figure)
