"""What every worker reads of every alias right now, and the verdict that follows, for the front page.

The last changes are in a file (`page_record`), not in a cache, because the caches are compared with
them. Invariant: no worker reads while the page's keys are being changed: a read holds the lock of
the record shared, a change holds it exclusively. An entry may still expire, be evicted or be cleared
through the API between two reads, so workers that disagree are read once more before the verdict.
"""

import itertools
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.consistency.sharing import SharingJudgement
from cacheapp.demo import page_record, timeline, worker_rpc
from cacheapp.demo.namespace import aliases
from cacheapp.demo.page_record import Record, record
from cacheapp.demo.timeline import Mark
from cacheapp.demo.verdict import (
    Counted,
    LastChanges,
    WorkerView,
    Written,
    is_broken,
    judge,
    judge_views,
)
from cacheapp.demo.worker_rpc import Reply, Request, Worker

VALUE_KEY = "_page-value"
INCREMENTS = 100
_FRESH_S = 1.0
_READ_S = 3.0
_CHANGE_S = 8.0
_CALLS_PER_WORKER = 2  # concurrent calls to each worker that increment


@dataclass(frozen=True)
class Tile:
    """A worker: its pid, its requests and its uptime; `None` if it did not answer."""

    pid: int
    requests: int | None
    uptime_s: float | None


@dataclass(frozen=True)
class AliasRow:
    """An alias: its last changes, what each worker reads, and the verdict."""

    alias: str
    backend: str
    changes: LastChanges
    views: list[WorkerView]
    judged: SharingJudgement


@dataclass(frozen=True)
class Overview:
    """Everything that the page shows. `missing`: configured workers that do not listen."""

    tiles: list[Tile]
    rows: list[AliasRow]
    missing: int
    at_s: float
    marks: list[Mark] = field(default_factory=list)


class _Latest:
    """The last overview of this worker. `_lock` guards it: one thread reads, the others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Overview | None = None
        self._changes: object = None  # that `_last` has seen

    def read(self) -> Overview:
        with self._lock:
            changes = page_record.stamp(
                page_record.FILE
            )  # first: one that comes during the reading is seen later
            last = self._last
            if (
                last is None
                or changes != self._changes
                or clock.monotonic_s() - last.at_s > _FRESH_S
            ):
                with record() as found:
                    last = _read(found)
                self._last, self._changes = last, changes
            return last

    def forget(self) -> None:
        with self._lock:
            self._last = None


_latest = _Latest()
read = _latest.read
"""Return what all workers read, at most a second old, and after the last change that any worker made."""


def write() -> None:
    """Write a new value into every alias, from this worker."""
    value = secrets.token_hex(3)
    own = [worker for worker in worker_rpc.workers() if worker.pid == os.getpid()]

    def request(_alias: str, _number: int) -> Request:
        return {"do": "write", "key": VALUE_KEY, "value": value}

    marks = []
    with record(changing=True) as found:
        for alias, replies in call_for_each(aliases(), own, request, _CHANGE_S).items():
            error = _first_error(replies)
            found.put(alias, written=Written(value, os.getpid(), error))
            marks.append(Mark(clock.wall_s(), alias, os.getpid(), "write", not error))
    timeline.add(marks)
    _latest.forget()


def increment() -> None:
    """Increment a new counter in every alias `INCREMENTS` times, from all workers together."""
    key = f"_page-count-{secrets.token_hex(4)}"
    callees = worker_rpc.workers() * _CALLS_PER_WORKER

    def request(_alias: str, number: int) -> Request:
        times = len(range(number, INCREMENTS, len(callees)))
        return {"do": "count", "key": key, "times": times, "within_s": _CHANGE_S - 2}

    marks: list[Mark] = []
    with record(changing=True) as found:
        for alias, replies in call_for_each(aliases(), callees, request, _CHANGE_S).items():
            found.put(alias, counted=_counted(key, replies))
            marks += _increment_marks(alias, replies)
    timeline.add(marks)
    _latest.forget()


def clear() -> None:
    """Remove the demo's keys, and no others, from every alias, in every worker."""
    with record(changing=True) as found:

        def request(alias: str, _number: int) -> Request:
            return {"do": "clear", "keys": _keys(found.of(alias))}

        call_for_each(aliases(), worker_rpc.workers(), request, _CHANGE_S)
        for alias in aliases():
            found.put(alias, written=None, counted=None)
    _latest.forget()


def _read(found: Record) -> Overview:
    listening = worker_rpc.workers()
    calls: list[tuple[Worker, Request]] = [(worker, {"do": "present"}) for worker in listening]
    present = [reply for reply in worker_rpc.call(calls, _READ_S) if not reply.gone]
    tiles = [_tile(reply) for reply in present]
    missing = max(0, (conf().workers or 0) - len(tiles))
    callees = [reply.worker for reply in present]
    views = _views(found, aliases(), callees)
    # An expiry or a clear between two replies is over by the second read.
    again = [alias for alias, seen in views.items() if is_broken(found.of(alias), seen)]
    views |= _views(found, again, callees)
    rows = [_row(alias, found.of(alias), seen, missing) for alias, seen in views.items()]
    timeline.add(mark for row in rows for mark in _read_marks(row))
    return Overview(tiles, rows, missing, clock.monotonic_s(), timeline.recent())


def _read_marks(row: AliasRow) -> list[Mark]:
    now_s = clock.wall_s()
    compared = judge_views(row.changes, row.views)
    return [
        Mark(now_s, row.alias, one.view.pid, "read", not one.misses)
        for one in compared
        if not (one.view.silent or one.view.error)
    ]


def _increment_marks(alias: str, replies: list[Reply]) -> list[Mark]:
    now_s = clock.wall_s()
    return [
        Mark(now_s, alias, reply.worker.pid, "increment", ok=True, times=len(reply.body["sums"]))
        for reply in replies
        if reply.body and reply.body.get("sums")
    ]


def _views(found: Record, about: list[str], callees: list[Worker]) -> dict[str, list[WorkerView]]:
    def request(alias: str, _number: int) -> Request:
        return {"do": "read", "keys": _keys(found.of(alias))}

    return {
        alias: [_view(reply, found.of(alias)) for reply in replies]
        for alias, replies in call_for_each(about, callees, request, _READ_S).items()
    }


def call_for_each(
    about: list[str],
    callees: list[Worker],
    request: Callable[[str, int], Request],
    within_s: float,
) -> dict[str, list[Reply]]:
    """Call the workers for all aliases at once: a store that hangs does not delay the others."""
    calls = [
        (worker, {**request(alias, number), "alias": alias})
        for alias in about
        for number, worker in enumerate(callees)
    ]
    replies = iter(worker_rpc.call(calls, within_s))
    return {alias: list(itertools.islice(replies, len(callees))) for alias in about}


def _keys(changes: LastChanges) -> list[str]:
    return [VALUE_KEY, *([changes.counted.key] if changes.counted else [])]


def _tile(reply: Reply) -> Tile:
    body = reply.body or {}
    return Tile(reply.worker.pid, body.get("requests"), body.get("uptime_s"))


def _view(reply: Reply, changes: LastChanges) -> WorkerView:
    pid = reply.worker.pid
    if reply.body is None:
        return WorkerView(pid, silent=True)
    if error := reply.body.get("error"):
        return WorkerView(pid, error=error)
    values = reply.body["values"]
    count = values.get(changes.counted.key) if changes.counted else None
    return WorkerView(pid, values[VALUE_KEY], count)


def _row(alias: str, changes: LastChanges, views: list[WorkerView], missing: int) -> AliasRow:
    backend = str(settings.CACHES[alias]["BACKEND"])
    return AliasRow(alias, backend, changes, views, judge(changes, views, missing))


def _counted(key: str, replies: list[Reply]) -> Counted:
    """Add up the replies; a call without one may have made all increments of its share."""
    sums = [number for reply in replies for number in (reply.body or {}).get("sums", [])]
    lost = [number for number, reply in enumerate(replies) if reply.body is None]
    shares = [len(range(number, INCREMENTS, len(replies))) for number in lost]
    unknown = sum((reply.body or {}).get("unknown", 0) for reply in replies) + sum(shares)
    repeated = len(sums) - len(set(sums))
    return Counted(key, INCREMENTS, len(sums), unknown, repeated, _first_error(replies))


def _first_error(replies: list[Reply]) -> str:
    """Return the first error, or an empty text."""
    for reply in replies:
        if reply.body is None:
            return f"worker {reply.worker.pid} did not answer in time"
        if error := reply.body.get("error") or reply.body.get("why"):
            return str(error)
    return ""
