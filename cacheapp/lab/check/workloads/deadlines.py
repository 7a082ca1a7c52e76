"""Expiry, `touch`, and the deadline that `incr` must keep: nothing is served when its time is over."""

from collections.abc import Sequence
from dataclasses import dataclass

from cacheapp import clock
from cacheapp.consistency.history import ABSENT
from cacheapp.lab.check.run import Run
from cacheapp.lab.check.session import Session
from cacheapp.lab.check.verdicts import Finding, Verdict, plain
from cacheapp.lab.waiting import pause

TOLERANCE_MS = 5.0
"""Deadlines are wall time at the store, and measured by another clock: less than this says nothing."""
_SHORT_S, _TOUCHED_S, _WATCH_S = 1, 2, 0.4

EXPIRY, TOUCH, KEPT = (
    "nothing after its deadline",
    "touch moves the deadline",
    "incr keeps the deadline",
)


@dataclass(frozen=True)
class Seen:
    """What one session saw of one key: moments in ns.

    `promised`: by when the entry must be gone, as far as whoever wrote it knows, else `None`.
    `last_hit`: the call of the latest read that found it. `first_miss`: the call of the first that
    did not any more.
    """

    key: str
    promised: int | None
    last_hit: int | None
    first_miss: int | None


def live(session: Session, keys: Sequence[str]) -> list[Seen]:
    """Write (one session), and watch until well after the deadlines."""
    expiring, touched, counted = keys
    promised: dict[str, int] = {}
    if session.number == 0:
        session.set(expiring, 1, _SHORT_S)
        promised[expiring] = clock.monotonic_ns() + _SHORT_S * 10**9
        session.set(counted, 1, _SHORT_S)
        promised[counted] = clock.monotonic_ns() + _SHORT_S * 10**9
        session.set(touched, 1, _SHORT_S)
        pause(0.1)
        if session.touch(touched, _TOUCHED_S):
            promised[touched] = clock.monotonic_ns() + _TOUCHED_S * 10**9
        session.incr(counted)
    else:
        pause(0.2)
    end = clock.monotonic_ns() + int((_TOUCHED_S + _WATCH_S) * 10**9)
    hits: dict[str, int] = {}
    misses: dict[str, int] = {}
    while (now := clock.monotonic_ns()) < end:
        for key in keys:
            now = clock.monotonic_ns()
            found = session.get(key)
            if found is ABSENT:
                if key in hits:  # else it never was where this session looks
                    misses.setdefault(key, now)
            elif found is not None:
                hits[key] = now
        pause(0.002)
    return [Seen(key, promised.get(key), hits.get(key), misses.get(key)) for key in keys]


def deadlines(run: Run) -> list[Finding]:
    """Watch keys past their deadlines."""
    keys = run.keys("deadline", 3)
    seen = [one for part in run.work(live, keys, seconds=10.0) for one in part]
    run.history()
    mishap = run.mishap()
    findings = []
    for name, key in zip((EXPIRY, TOUCH, KEPT), keys, strict=True):
        own = [one for one in seen if one.key == key]
        findings.append(_judge(name, own, mishap))
    return findings


def _judge(name: str, own: Sequence[Seen], mishap: str) -> Finding:
    promised = next((one.promised for one in own if one.promised), None)
    hits = [one.last_hit for one in own if one.last_hit]
    if promised is None:
        if mishap:
            return Finding(name, Verdict.UNKNOWN, "", mishap)
        return Finding(name, Verdict.BROKEN, "", "touch said that the key is missing")
    if not hits:
        return Finding(name, Verdict.UNKNOWN, "", mishap or "no read found the key")
    late_ms = max(0.0, (max(hits) - promised) / 1e6)
    wrong = []
    if late_ms > TOLERANCE_MS:
        still = (
            " and still at the end"
            if any(one.last_hit and not one.first_miss for one in own)
            else ""
        )
        wrong.append(f"it was read {late_ms:.0f} ms after its deadline{still}")
    early = [one.first_miss for one in own if one.first_miss]
    gained = (_TOUCHED_S - _SHORT_S) * 10**9 if name == TOUCH else 0
    if name == TOUCH and early and min(early) < promised - gained / 2:
        wrong.append("it was gone long before the deadline that touch had given it")
    return plain(name, wrong, f"{late_ms:.0f} ms late at worst")
