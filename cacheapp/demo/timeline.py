"""What the workers did with each alias in the last 30 s: a small file in `STATE_DIR`, shared by all workers.

It is replaced whole under a lock. Marks that could not be written in time are left out: the timeline
is an illustration, and the verdicts do not depend on it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cacheapp import clock
from cacheapp.demo.page_record import locked, read_record_or_none, write_json
from cacheapp.errors import StoreUnavailable
from cacheapp.typed_values import read_dataclass

logger = logging.getLogger(__name__)

SHOWN_S = 30.0
_MIN_GAP_S = 0.5
"""Equal reads of a worker that follow each other faster are one mark."""
_MERGE_PERCENT = 0.9
_LOOKED_AT = 400  # marks: more than the workers add within the gap
_FILE = "timeline.json"


class Mark(NamedTuple):
    """One or more operations of a worker at one time. `ok`: False if it missed what another one did."""

    at_s: float
    alias: str
    pid: int
    kind: str
    """`write`, `read` or `increment`."""
    ok: bool
    times: int = 1


@dataclass(frozen=True)
class Spot:
    """Marks that are drawn as one: the place in percent of the lane, and what they are."""

    percent: float
    kind: str
    ok: bool
    times: int
    ago_s: float


def add(marks: Iterable[Mark]) -> None:
    """Append marks, and remove those that are no longer shown."""
    new = list(marks)
    try:
        with locked("timeline", changing=True) as directory:
            write_json(directory / _FILE, _joined(_read(), new))
    except StoreUnavailable as exc:
        logger.warning("the timeline lacks %d marks: %s", len(new), exc)


def _joined(known: list[Mark], new: list[Mark]) -> list[Mark]:
    oldest_s = clock.wall_s() - SHOWN_S - 1
    kept = [mark for mark in known if mark.at_s > oldest_s]
    for mark in new:
        if not _is_repetition(mark, kept):
            kept.append(mark)
    return kept


def recent() -> list[Mark]:
    """Return the marks of the last 30 s, in the order in which they were added."""
    with locked("timeline"):
        found = _read()
    oldest_s = clock.wall_s() - SHOWN_S
    return [mark for mark in found if mark.at_s > oldest_s]


def lanes(marks: Iterable[Mark], now_s: float) -> dict[tuple[str, int], list[Spot]]:
    """Return what to draw in the lane of each alias and worker, from the oldest to the newest. Pure."""
    found: dict[tuple[str, int], list[Spot]] = {}
    for mark in sorted(marks):
        lane = found.setdefault((mark.alias, mark.pid), [])
        ago_s = max(0.0, now_s - mark.at_s)
        spot = Spot(
            round(100 * (1 - ago_s / SHOWN_S), 2), mark.kind, mark.ok, mark.times, round(ago_s, 1)
        )
        last = lane[-1] if lane else None
        if last and _is_drawn_with(last, spot):
            times = last.times + spot.times if spot.kind == "increment" else last.times
            lane[-1] = Spot(last.percent, last.kind, last.ok, times, last.ago_s)
        else:
            lane.append(spot)
    return found


def _is_drawn_with(last: Spot, spot: Spot) -> bool:
    same = (last.kind, last.ok) == (spot.kind, spot.ok)
    return same and spot.percent - last.percent < _MERGE_PERCENT


def _is_repetition(mark: Mark, known: list[Mark]) -> bool:
    if mark.kind != "read":
        return False
    return any(
        mark.at_s - one.at_s < _MIN_GAP_S and mark[1:] == one[1:]
        for one in reversed(known[-_LOOKED_AT:])
    )


def _read() -> list[Mark]:
    return read_record_or_none(_FILE, _parse) or []


def _parse(raw: Any) -> list[Mark]:
    return [read_dataclass(Mark, dict(zip(Mark._fields, one, strict=True))) for one in raw]
