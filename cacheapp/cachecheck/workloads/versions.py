"""`incr_version` moves an entry: it is never in both versions or in neither, and one mover wins."""

from collections import Counter
from collections.abc import Sequence

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.session import TIMEOUT_S, ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, plain

ROUNDS = 25
_ROUND_NS = 8_000_000

MOVE = "incr_version is a move"


def prepare(session: ClientSession, keys: Sequence[str]) -> None:
    """Let one session write all keys."""
    if session.number == 0:
        for key in keys:
            session.cache.set(key, 1, TIMEOUT_S, version=1)


def move(session: ClientSession, keys: Sequence[str], start_ns: int) -> Counter[str]:
    """Move each key at its moment (two sessions), or read both versions (the others)."""
    seen: Counter[str] = Counter()
    for number, key in enumerate(keys):
        moment = start_ns + number * _ROUND_NS
        session.until_ns(moment)
        try:
            if session.number < 2:  # noqa: PLR2004 (two movers)
                seen[f"won {key}"] += _won(session, key)
            else:
                while clock.monotonic_ns() < moment + _ROUND_NS * 3 // 4:
                    _look(session, key, seen)
        except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
            seen[f"! {type(exc).__name__}: {exc}"[:200]] += 1
    return seen


def _won(session: ClientSession, key: str) -> bool:
    try:
        session.cache.incr_version(key, version=1)
    except ValueError:
        return False
    return True


def _look(session: ClientSession, key: str, seen: Counter[str]) -> None:
    """Read both versions in an order that finds the entry, since it moves only once."""
    old = session.cache.get(key, version=1) is not None
    new = session.cache.get(key, version=2) is not None
    seen["looks"] += 1
    seen["neither"] += not old and not new  # it had left the old one before the new one was read
    if new:
        seen["both"] += session.cache.get(key, version=1) is not None


def versions(run: CheckRun) -> list[PropertyFinding]:
    """Move keys from version 1 to version 2 while other sessions read."""
    keys = run.keys("version", ROUNDS)
    run.work(prepare, keys)
    parts = run.work(move, keys, clock.monotonic_ns() + 60_000_000)
    run.history()
    seen: Counter[str] = sum(parts, Counter())
    won = [seen[f"won {key}"] for key in keys]
    errors = [text for text in seen if text.startswith("! ")]
    wrong = [
        f"{seen[what]} looks found the entry under {what} of its versions"
        for what in ("neither", "both")
        if seen[what] and not (run.evicts and what == "neither")
    ]
    if double := sum(count > 1 for count in won):
        wrong.append(f"{double} of {len(keys)} keys were moved twice")
    odd = seen["neither"] + seen["both"]
    figure = f"{odd} of {seen['looks']} looks wrong, {double} of {len(keys)} moved twice"
    unanswered = f"{errors[0][2:]}" if errors or not any(won) else ""
    return [plain(MOVE, wrong, figure, unanswered=unanswered)]
