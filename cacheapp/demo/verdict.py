"""What the front page may conclude about an alias from what its workers read. Pure.

The reads are compared with the last changes: a value that one worker wrote, and increments that
were acknowledged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cacheapp.consistency.sharing import (
    CounterReads,
    SharingJudgement,
    SharingVerdict,
    WriteReads,
    counter_confirmations,
    counter_contradictions,
    write_confirmations,
    write_contradictions,
)
from cacheapp.consistency.sharing import judge as judge_sharing


@dataclass(frozen=True)
class Written:
    """The last write: the value, the worker that wrote it, and the error, if any."""

    value: str
    pid: int
    error: str = ""


@dataclass(frozen=True)
class Counted:
    """The last increments: how many were requested, and what they returned."""

    key: str
    asked: int
    done: int
    unknown: int
    repeated: int
    """How many returned the same sum as another one."""
    error: str = ""


@dataclass(frozen=True)
class LastChanges:
    """The last changes that the page made to an alias."""

    written: Written | None = None
    counted: Counted | None = None


@dataclass(frozen=True)
class WorkerView:
    """What one worker reads: `None` for a missing key; `error` if the store refused the read."""

    pid: int
    value: Any = None
    count: Any = None
    error: str = ""
    silent: bool = False


def judge(changes: LastChanges, views: Sequence[WorkerView], missing: int = 0) -> SharingJudgement:
    """Return the verdict; `missing` workers did not listen and have no view.

    A key that no worker reads may have expired or been evicted, so it proves nothing.
    """
    readable = [one for one in views if not (one.error or one.silent)]
    write, counter = _write(changes.written, readable), _counter(changes.counted, readable)
    confirmations = [
        *(write_confirmations(write) if write else []),
        *(counter_confirmations(counter) if counter else []),
    ]
    incomplete = _incomplete(views, readable, missing)
    if (changes.written or changes.counted) and not (incomplete or confirmations):
        incomplete = ["no worker has the key any more: it expired, was cleared or was evicted"]
    return judge_sharing(
        [
            *(write_contradictions(write, may_be_gone=True) if write else []),
            *(counter_contradictions(counter, may_be_gone=True) if counter else []),
        ],
        down=_errors(changes, views)[:1],
        incomplete=incomplete,
        confirmations=confirmations,
    )


def is_broken(changes: LastChanges, views: Sequence[WorkerView]) -> bool:
    """Return whether the workers disagree."""
    return judge(changes, views).verdict is SharingVerdict.BROKEN


@dataclass(frozen=True)
class ComparedView:
    """One worker's view against the last changes: `right`, `wrong`, `expired`, or `` to compare with nothing."""

    view: WorkerView
    value: str
    count: str

    @property
    def misses(self) -> bool:
        """Whether the worker does not see what another one did."""
        return "wrong" in {self.value, self.count}


def judge_views(changes: LastChanges, views: Sequence[WorkerView]) -> list[ComparedView]:
    """Return how each worker's view compares with the last changes.

    It follows the same rules as the verdict: a key that no worker has is expired, for all of them.
    """
    readable = [one for one in views if not (one.error or one.silent)]
    written, counted = changes.written, changes.counted
    no_value = all(one.value is None for one in readable)
    no_count = all(one.count is None for one in readable)

    def of_value(view: WorkerView) -> str:
        if written is None or written.error:
            return ""
        return "expired" if no_value else _right(view.value == written.value)

    def of_count(view: WorkerView) -> str:
        if counted is None or not counted.done:
            return ""
        most = counted.done + counted.unknown
        is_right = isinstance(view.count, int) and counted.done <= view.count <= most
        return "expired" if no_count else _right(is_right)

    return [ComparedView(view, of_value(view), of_count(view)) for view in views]


def _right(is_right: bool) -> str:  # noqa: FBT001 (it is the subject)
    return "right" if is_right else "wrong"


def _write(written: Written | None, views: Sequence[WorkerView]) -> WriteReads | None:
    if written is None or not views:
        return None
    return WriteReads(written.pid, written.value, {one.pid: one.value for one in views})


def _counter(counted: Counted | None, views: Sequence[WorkerView]) -> CounterReads | None:
    if counted is None or not views:
        return None
    reads = {one.pid: one.count for one in views}
    return CounterReads(counted.done, counted.unknown, counted.repeated, reads)


def _incomplete(
    views: Sequence[WorkerView], readable: Sequence[WorkerView], missing: int
) -> list[str]:
    absent = missing + sum(one.silent for one in views)
    if absent:
        return [f"{len(readable)} workers answered, and {absent} did not"]
    if len(readable) < 2:  # noqa: PLR2004 (sharing requires two)
        return [f"{len(readable)} worker answered; sharing requires two"]
    return []


def _errors(changes: LastChanges, views: Sequence[WorkerView]) -> list[str]:
    made = (changes.written, changes.counted)
    errors = [one.error for one in views] + [one.error for one in made if one]
    return [error for error in errors if error]
