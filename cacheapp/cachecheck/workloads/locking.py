"""`cache.lock()`, if the backend has it: one holder at a time, and fencing tokens that only grow."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun, not_applicable, until_s
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, plain
from cacheapp.processes.waiting import pause

# The same in every run: a fencing token must outlive its lock, so a name that is used once stays.
NAME = "cachecheck-lock"
ROUNDS = 60
_HELD_S = 0.001
_LONG_HELD_S = 0.5
"""How long one session holds it once: a lock that ends early is found only while it is held."""
_TIMEOUT_S = 20

EXCLUSIVE, FENCED = "one holder of a lock", "fencing tokens only grow"


@dataclass(frozen=True)
class HeldInterval:
    """An interval in which a session certainly held the lock, and its fencing token."""

    process: str
    since: int
    until: int
    token: int | None


def has_lock(session: ClientSession, name: str) -> bool:
    """Return whether the backend has locks with `acquire`."""
    try:
        return hasattr(session.cache.lock(name, timeout=_TIMEOUT_S), "acquire")
    except AttributeError:
        return False


def take_turns(session: ClientSession, name: str, seconds: float) -> tuple[list[HeldInterval], str]:
    """Acquire and release the lock repeatedly; return the intervals, and the first error."""
    held: list[HeldInterval] = []
    deadline = until_s(seconds)
    for turn in range(ROUNDS):
        if turn and clock.monotonic_s() > deadline:
            break
        lock = session.cache.lock(name, timeout=_TIMEOUT_S)
        called = clock.monotonic_ns()
        try:
            if not lock.acquire(blocking=True):
                continue
            since = clock.monotonic_ns()
            token = getattr(lock, "token", None)
            pause(_LONG_HELD_S if turn == 0 and session.number == 0 else _HELD_S)
            until = clock.monotonic_ns()
            if until - called < _TIMEOUT_S * 10**9:  # else it may have lost it, and rightly
                number = token if _is_int(token) else None
                held.append(HeldInterval(session.process, since, until, number))
            lock.release()
        except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
            return held, f"{type(exc).__name__}: {exc}"[:200]
    return held, ""


def _is_int(token: Any) -> bool:
    return isinstance(token, int) and not isinstance(token, bool)


def locks(run: CheckRun) -> list[PropertyFinding]:
    """Have all sessions take turns."""
    name = NAME
    if not all(run.work(has_lock, name)):
        return not_applicable(EXCLUSIVE, FENCED, why="the backend has no lock() with acquire()")
    parts = run.work(take_turns, name, run.seconds)
    run.history()
    held = sorted((one for part, _ in parts for one in part), key=lambda one: one.since)
    failed = next((error for _, error in parts if error), "")
    exclusive = _exclusive(held, failed)
    tokens = [one.token for one in held]
    if held and all(token is None for token in tokens):
        return [exclusive, *not_applicable(FENCED, why="its locks have no fencing tokens")]
    return [exclusive, _fenced(held, failed)]


def _exclusive(held: Sequence[HeldInterval], failed: str) -> PropertyFinding:
    together = 0
    last: HeldInterval | None = None
    for one in held:
        if last and one.since < last.until:
            together += 1
        if last is None or one.until > last.until:
            last = one
    wrong = (
        [f"{together} of {len(held)} times two threads held the lock together"] if together else []
    )
    figure = f"{together} of {len(held)} together"
    return plain(EXCLUSIVE, wrong, figure, unanswered=failed or ("" if held else "never held"))


def _fenced(held: Sequence[HeldInterval], failed: str) -> PropertyFinding:
    back = sum(
        not (earlier.token or 0) < (later.token or 0)
        for earlier, later in itertools.pairwise(held)
        if earlier.until < later.since
    )
    wrong = [f"{back} of {len(held)} tokens were not larger than the one before"] if back else []
    return plain(FENCED, wrong, f"{back} of {len(held)} went back", unanswered=failed)
