"""`get_or_set` on a cold key: one session computes it, and no outdated value is stored."""

from collections.abc import Sequence
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.session import TIMEOUT_S, ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, plain
from cacheapp.processes.waiting import pause

ROUNDS = 12
_ROUND_NS = 40_000_000
_FACTORY_S = 0.01
FILLS = 6
_SIGN_S = 8.0

ONCE, FRESH = "one computation of a cold key", "no stale fill"


def get_each(session: ClientSession, keys: Sequence[str], start_ns: int) -> list[tuple[int, Any]]:
    """Get each key at its moment; return how often this session computed it, and the value."""
    seen = []
    for number, key in enumerate(keys):
        calls = [0]
        mine = session.unique()

        def factory(calls: list[int] = calls, mine: int = mine) -> int:
            calls[0] += 1
            pause(_FACTORY_S)
            return mine

        session.until_ns(start_ns + number * _ROUND_NS)
        try:
            value: Any = session.cache.get_or_set(key, factory, TIMEOUT_S)
        except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
            value = f"{type(exc).__name__}: {exc}"
        seen.append((calls[0], value))
    return seen


def cold_keys(run: CheckRun) -> list[PropertyFinding]:
    """Get cold keys from all sessions at the same moment."""
    keys = run.keys("cold", ROUNDS)
    seen = run.work(get_each, keys, clock.monotonic_ns() + 60_000_000)
    calls = [sum(one[number][0] for one in seen) for number in range(len(keys))]
    failed = [value for one in seen for _, value in one if not isinstance(value, int)]
    several = sum(count > 1 for count in calls)
    figure = f"{max(calls)} calls per key" if max(calls) != 1 else "1 call per key"
    wrong = []
    if several:
        wrong.append(
            f"{several} of {len(keys)} cold keys were computed by several of {len(seen)} threads, "
            f"one by {max(calls)}"
        )
    unanswered = f"{len(failed)} calls failed, the first with {failed[0]}" if failed else ""
    return [plain(ONCE, wrong, figure, unanswered=unanswered)]


def fill(session: ClientSession, key: str, name: str, source: str, *, by_set: bool) -> str:
    """Session 0 computes from an old source while session 1 changes it; the others read afterwards."""
    if session.number == 0:
        session.cache.get_or_set(key, lambda: _compute(session, name, source), TIMEOUT_S)
        session.signal_event(f"{name}-filled")
        return ""
    if session.number == 1:
        if not session.await_event(f"{name}-computing", _SIGN_S):
            session.signal_event(f"{name}-changed")
            return "the factory was not called"
        (session.directory / source).write_text("new")
        if by_set:
            session.cache.set(key, "new", TIMEOUT_S)
        else:
            session.cache.delete(key)
        session.signal_event(f"{name}-changed")
    if not session.await_event(f"{name}-filled", 2 * _SIGN_S):
        return "the filler did not return"
    if not session.await_event(f"{name}-changed", 2 * _SIGN_S):
        return "the key was not changed"
    found = session.cache.get(key, "absent")
    return f"stale: {found}" if found == "old" else ""


def _compute(session: ClientSession, name: str, source: str) -> str:
    value = (session.directory / source).read_text()
    session.signal_event(f"{name}-computing")
    session.await_event(f"{name}-changed", _SIGN_S)
    return value


def stale_fills(run: CheckRun) -> list[PropertyFinding]:
    """Change the source of a value, and the key, while the value is computed."""
    keys = run.keys("fill", FILLS)
    stale, odd = 0, ""
    for number, key in enumerate(keys):
        name = f"{key}-{number}"
        source = run.journals.directory / f"{name}.source"
        source.write_text("old")
        seen = run.crew.run(
            _fill_by_set if number % 2 else _fill_by_delete,
            *(key, name, source.name),
            within_s=60.0,
            use_async=run.use_async,
        )
        stale += any(outcome.startswith("stale") for outcome in seen)
        odd = odd or next(
            (outcome for outcome in seen if outcome and not outcome.startswith("stale")), ""
        )
    run.history()
    wrong = []
    if stale:
        wrong.append(
            f"in {stale} of {FILLS} rounds the cache kept a value that was computed before the key "
            "was deleted or set"
        )
    return [plain(FRESH, wrong, f"{stale} of {FILLS} stale", unanswered=odd)]


def _fill_by_set(session: ClientSession, key: str, name: str, source: str) -> str:
    return fill(session, key, name, source, by_set=True)


def _fill_by_delete(session: ClientSession, key: str, name: str, source: str) -> str:
    return fill(session, key, name, source, by_set=False)
