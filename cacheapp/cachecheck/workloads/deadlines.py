"""Expiry, `touch`, and the deadline that `incr` must keep: nothing is served after its deadline."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun, lacks
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict, plain
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome
from cacheapp.processes.waiting import pause

TOLERANCE_MS = 5.0
"""Deadlines are wall time at the store and measured with another clock; less is not significant."""
# Some backends truncate deadlines to whole seconds.
_TIMEOUT_S, _SHORTENED_S, _LONG_S, _WATCH_S = 2, 1, 300, 0.4
_TRIES = 5  # a process that is not scheduled for long may touch a key that has expired
_CERTAIN_NS = (_TIMEOUT_S - 1) * 10**9  # then a key exists, also with a truncated deadline
_REFUSED = "touch returned False for an existing key"

EXPIRY, TOUCH, KEPT = (
    "nothing after its deadline",
    "touch moves the deadline",
    "incr keeps the deadline",
)


@dataclass(frozen=True)
class Seen:
    """The reads of one key by one session: moments in ns.

    `promised`: the deadline, if this session wrote the entry, else `None`. `last_hit`: the call of the
    latest read that found it. `first_miss`: the call of the first read after a hit that did not.
    """

    key: str
    promised: int | None
    last_hit: int | None
    first_miss: int | None


def live(session: ClientSession, keys: Sequence[str]) -> list[Seen]:
    """Write (one session), and read until well after the deadlines."""
    promised = _write(session, keys) if session.number == 0 else {}
    if session.number:
        pause(0.05)
    end = clock.monotonic_ns() + int((_TIMEOUT_S + _WATCH_S) * 10**9)
    hits: dict[str, int] = {}
    misses: dict[str, int] = {}
    while clock.monotonic_ns() < end:
        for key in keys:
            now = clock.monotonic_ns()
            found = session.get(key)
            if found is ABSENT:
                if key in hits:  # else this session never saw the entry
                    misses.setdefault(key, now)
            elif found is not None:
                hits[key] = now
        pause(0.002)
    return [Seen(key, promised.get(key), hits.get(key), misses.get(key)) for key in keys]


def _write(session: ClientSession, keys: Sequence[str]) -> dict[str, int]:
    """Write each key in its way; return the latest moment of each deadline."""
    expiring, counted, shortened, lengthened = keys
    promised = {}

    def gone_after(key: str, seconds: int) -> None:
        promised[key] = clock.monotonic_ns() + seconds * 10**9

    session.set(expiring, 1, _TIMEOUT_S)
    gone_after(expiring, _TIMEOUT_S)
    if "incr" in session.abilities:
        session.set(counted, 1, _TIMEOUT_S)
        gone_after(counted, _TIMEOUT_S)
        session.incr(counted)
    if not session.can("touch"):
        return promised
    session.set(shortened, 1, _LONG_S)
    if session.touch(shortened, _SHORTENED_S):
        gone_after(shortened, _SHORTENED_S)
    for _ in range(_TRIES):
        session.set(lengthened, 1, _TIMEOUT_S)
        if session.touch(lengthened, _LONG_S):
            gone_after(lengthened, _LONG_S)
            break
    return promised


def deadlines(run: CheckRun) -> list[PropertyFinding]:
    """Read keys past their deadlines."""
    keys = run.keys("deadline", 4)
    seen = [one for part in run.work(live, keys, seconds=10.0) for one in part]
    history = run.history()
    first_error = run.first_error()
    expiring, counted, shortened, lengthened = (
        [one for one in seen if one.key == key] for key in keys
    )
    touched = _judge(TOUCH, shortened, first_error)
    if touched.verdict is PropertyVerdict.HOLDS and not run.evicts:
        refused = _refused([one for one in history if one.key == keys[3]])
        touched = _stayed(touched, lengthened, refused=refused)
    found = [_judge(EXPIRY, expiring, first_error), touched, _judge(KEPT, counted, first_error)]
    needed = {TOUCH: "touch", KEPT: "incr"}
    return [
        one if needed.get(one.property, "set") in run.abilities else lacks(run, one.property)
        for one in found
    ]


def _judge(name: str, own: Sequence[Seen], first_error: str) -> PropertyFinding:
    """Judge a key that must be absent after its deadline."""
    promised = next((one.promised for one in own if one.promised), None)
    hits = [one.last_hit for one in own if one.last_hit]
    if promised is None:
        if first_error:
            return PropertyFinding(name, PropertyVerdict.UNKNOWN, "", first_error)
        return PropertyFinding(name, PropertyVerdict.BROKEN, "", _REFUSED)
    if not hits:
        return PropertyFinding(
            name, PropertyVerdict.UNKNOWN, "", first_error or "no read found the key"
        )
    late_ms = max(0.0, (max(hits) - promised) / 1e6)
    wrong = []
    if late_ms > TOLERANCE_MS:
        still = " and still at the end" if any(_at_the_end(one) for one in own) else ""
        wrong.append(f"the key was read {late_ms:.0f} ms after its deadline{still}")
    return plain(name, wrong, f"{late_ms:.0f} ms late at worst")


def _at_the_end(one: Seen) -> bool:
    return one.last_hit is not None and (one.first_miss or 0) < one.last_hit


def _refused(own: Sequence[Operation]) -> bool:
    """Return whether a `touch` returned False although the key had certainly not expired."""
    return any(
        before.kind is OperationKind.SET
        and before.outcome is Outcome.OK
        and one.kind is OperationKind.TOUCH
        and one.result is False
        and (one.return_ns or 0) - before.call_ns < _CERTAIN_NS
        for before, one in itertools.pairwise(
            each for each in own if each.kind in {OperationKind.SET, OperationKind.TOUCH}
        )
    )


def _stayed(
    touched: PropertyFinding, lengthened: Sequence[Seen], *, refused: bool
) -> PropertyFinding:
    """Judge a key that must still exist, because `touch` moved its deadline."""
    promised = next((one.promised for one in lengthened if one.promised), None)
    if promised is None and not refused:
        why = f"in {_TRIES} attempts the key expired before touch was called, or a call failed"
        return PropertyFinding(touched.property, PropertyVerdict.UNKNOWN, touched.figure, why)
    if promised is None:
        return PropertyFinding(touched.property, PropertyVerdict.BROKEN, touched.figure, _REFUSED)
    touched_at = promised - _LONG_S * 10**9
    if not any(one.first_miss and one.first_miss > touched_at for one in lengthened):
        return touched
    why = "the key was missing long before the deadline that touch had set"
    return PropertyFinding(touched.property, PropertyVerdict.BROKEN, touched.figure, why)
