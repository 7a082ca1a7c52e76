"""Values of mixed size that are overwritten, and many keys at once: never torn, never missing."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.run import CheckRun, until_s
from cacheapp.cachecheck.session import TIMEOUT_S, ClientSession
from cacheapp.cachecheck.verdicts import PropertyFinding, plain
from cacheapp.cachecheck.workloads.registers import LEAST, one_order

KEYS = 4
_SIZES = (1, 100, 5_000, 40_000, 200_000)
WRITES = 300
BATCHES = 200
_WRITTEN = 0.3  # of the batches; the others are read

WHOLE, MANY = "values whole and there", "many keys at once"


def checked(rng: Any, size: int) -> bytes:
    """Return random bytes with their checksum."""
    body: bytes = rng.randbytes(size)
    return hashlib.sha256(body).digest() + body


def whole(value: Any) -> bool:
    """Return whether a value is one that `checked` made."""
    return isinstance(value, bytes) and hashlib.sha256(value[32:]).digest() == value[:32]


def write_first(session: ClientSession, keys: Sequence[str]) -> None:
    """Let one session write all keys."""
    if session.number == 0:
        for key in keys:
            session.cache.set(key, checked(session.rng, 10), TIMEOUT_S)


def overwrite(
    session: ClientSession, keys: Sequence[str], seconds: float, most: int
) -> Counter[str]:
    """Overwrite and read; count the reads by what they returned."""
    deadline = until_s(seconds)
    seen: Counter[str] = Counter()
    sizes = [size for size in _SIZES if size <= most] or [most]
    for number in range(WRITES):
        if number >= LEAST and clock.monotonic_s() > deadline:
            break
        try:
            if session.number % 2 == 0:
                value = checked(session.rng, session.rng.choice(sizes))
                if session.cache.set(session.rng.choice(keys), value, TIMEOUT_S) is False:
                    seen["failed"] += 1
            for _ in range(4):
                found = session.cache.get(session.rng.choice(keys))
                seen["missing" if found is None else "whole" if whole(found) else "torn"] += 1
        except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
            seen["failed"] += 1
            seen[f"! {type(exc).__name__}: {exc}"[:200]] += 1
    return seen


def values(run: CheckRun) -> list[PropertyFinding]:
    """Overwrite keys that always exist with values of mixed size, and read them."""
    keys = run.keys("value", KEYS)
    run.work(write_first, keys)
    parts = run.work(overwrite, keys, run.seconds, run.max_bytes // KEYS - 32)
    seen: Counter[str] = sum(parts, Counter())
    run.history()
    reads = seen["missing"] + seen["whole"] + seen["torn"]
    wrong = []
    if seen["torn"]:
        wrong.append(f"{seen['torn']} of {reads} reads returned a value that no client wrote")
    if seen["missing"] and not run.evicts:
        wrong.append(
            f"{seen['missing']} of {reads} reads missed a key that was only ever overwritten"
        )
    errors = [text for text in seen if text.startswith("! ")]
    unanswered = f"{seen['failed']} calls failed {' '.join(errors[:1])}" if errors else ""
    missing = 0 if run.evicts else seen["missing"]
    figure = f"{seen['torn']} torn, {missing} missing of {reads}"
    return [plain(WHOLE, wrong, figure, unanswered=unanswered if not seen["whole"] else "")]


def batches(session: ClientSession, keys: Sequence[str], seconds: float) -> None:
    """Write and read several keys at once."""
    deadline = until_s(seconds)
    for number in range(BATCHES):
        if number >= LEAST and clock.monotonic_s() > deadline:
            return
        some = session.rng.sample(list(keys), session.rng.randint(2, len(keys)))
        if session.rng.random() < _WRITTEN:
            session.set_many({key: session.unique() for key in some})
        else:
            session.get_many(some)


def many(run: CheckRun) -> list[PropertyFinding]:
    """Judge `set_many` and `get_many` key by key."""
    keys = run.keys("many", KEYS)
    run.work(batches, keys, run.seconds)
    return [one_order(MANY, run.history(), run)]
