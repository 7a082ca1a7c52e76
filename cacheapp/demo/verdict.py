"""What may be said of a cache by what its workers see. Pure.

Held against what was asked for: a value that one worker wrote, increments that were acknowledged.
The alias's name and backend play no part.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class SharingVerdict(enum.StrEnum):
    """What is seen, at this moment."""

    SHARED = "SHARED"
    BROKEN = "BROKEN"
    DOWN = "DOWN"
    """A worker was refused by the store."""
    OPEN = "OPEN"
    """Nothing was written, or not all workers answered: nothing can be said."""


@dataclass(frozen=True)
class Written:
    """The last write: by which worker, and what came of it."""

    value: str
    pid: int
    error: str = ""


@dataclass(frozen=True)
class Counted:
    """The last increments: how many were asked for, and what those that happened were told."""

    key: str
    asked: int
    done: int
    unknown: int
    repeated: int
    """How many were told a sum that another one was told too."""
    error: str = ""


@dataclass(frozen=True)
class Asked:
    """What was last asked of an alias."""

    written: Written | None = None
    counted: Counted | None = None


@dataclass(frozen=True)
class Sighting:
    """What one worker reads: `None` for what is not there; `error` when it could not read."""

    pid: int
    value: Any = None
    count: Any = None
    error: str = ""
    silent: bool = False


@dataclass(frozen=True)
class Judged:
    """A verdict and the sentences behind it."""

    verdict: SharingVerdict
    why: list[str] = field(default_factory=list)


def judge(asked: Asked, seen: Sequence[Sighting], missing: int = 0) -> Judged:
    """Return what follows; `missing` workers were not there to be asked.

    BROKEN needs only the workers that answered: two that disagree are enough. SHARED needs all.
    """
    read = [one for one in seen if not (one.error or one.silent)]
    if wrong := [*_wrong_value(asked.written, read), *_wrong_count(asked.counted, read)]:
        return Judged(SharingVerdict.BROKEN, wrong)
    if refused := _refusal(asked, seen):
        return Judged(SharingVerdict.DOWN, [refused])
    absent = missing + sum(one.silent for one in seen)
    if absent or len(read) < 2:  # noqa: PLR2004 (one shares with nobody)
        who = f"{absent} more did not answer" if absent else "sharing takes two"
        return Judged(SharingVerdict.OPEN, [f"{len(read)} answered, and {who}"])
    right = [*_right_value(asked.written, read), *_right_count(asked.counted, read)]
    if right:
        return Judged(SharingVerdict.SHARED, right)
    if asked.written or asked.counted:
        return Judged(
            SharingVerdict.OPEN, ["no worker has it any more: expired, cleared or evicted"]
        )
    return Judged(SharingVerdict.OPEN, ["nothing was written yet"])


def _refusal(asked: Asked, seen: Sequence[Sighting]) -> str:
    errors = [one.error for one in seen if one.error]
    errors += [asked.written.error] if asked.written and asked.written.error else []
    errors += [asked.counted.error] if asked.counted and asked.counted.error else []
    return errors[0] if errors else ""


def _wrong_value(written: Written | None, read: Sequence[Sighting]) -> list[str]:
    having = [one for one in read if written and one.value == written.value]
    lacking = [str(one.pid) for one in read if one not in having]
    if written is None or not having or not lacking:
        return []
    return [f"worker {written.pid} wrote {written.value}; not seen by {_list(lacking)}"]


def _right_value(written: Written | None, read: Sequence[Sighting]) -> list[str]:
    if written is None or not all(one.value == written.value for one in read):
        return []
    return [f"all {len(read)} workers read what worker {written.pid} wrote"]


def _wrong_count(counted: Counted | None, read: Sequence[Sighting]) -> list[str]:
    numbers = [one.count for one in read]
    if counted is None or not read or all(number is None for number in numbers):
        return []
    least, most = counted.done, counted.done + counted.unknown
    wrong = []
    equal = len(set(map(str, numbers))) == 1
    if not equal or not isinstance(numbers[0], int) or not least <= numbers[0] <= most:
        said = _list(["nothing" if number is None else str(number) for number in numbers])
        wrong.append(f"{counted.done} increments were acknowledged; the workers read {said}")
    if counted.repeated:
        wrong.append(f"{counted.repeated} of them were told a sum that another one was told too")
    return wrong


def _right_count(counted: Counted | None, read: Sequence[Sighting]) -> list[str]:
    if counted is None or not counted.done or any(one.count is None for one in read):
        return []
    return [f"after {counted.done} increments at once all of them read {read[0].count}"]


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
