"""What every worker sees of every alias right now, and what may be said of it.

The demo page shows this, whichever worker serves it. What was written and counted last stands in a
file (`page_record`), not in a cache: it is what the caches are held against.

Invariant: nobody looks while the page's keys are being changed, in any worker: a look holds the
record's lock shared, a change holds it alone. What can still come in between is an entry that
expires, is evicted, or is cleared through the API: so workers that disagree are looked at once
more before anything is called broken.
"""

import itertools
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.demo import worker_rpc
from cacheapp.demo.namespace import aliases
from cacheapp.demo.page_record import Record, record
from cacheapp.demo.verdict import Asked, Counted, Judged, SharingVerdict, Sighting, Written, judge
from cacheapp.demo.worker_rpc import Question, Reply, Worker

VALUE_KEY = "_page-value"
INCREMENTS = 100
_FRESH_S = 1.0
_LOOK_S = 3.0
_CHANGE_S = 8.0
_LINES = 2  # questions to each worker at the same time, when it counts


@dataclass(frozen=True)
class Tile:
    """A worker: who it is, what it served, and since when; `None` where it did not answer."""

    pid: int
    requests: int | None
    uptime_s: float | None


@dataclass(frozen=True)
class Row:
    """An alias: what was asked of it, what each worker sees of it, and what follows."""

    alias: str
    backend: str
    asked: Asked
    sightings: list[Sighting]
    judged: Judged


@dataclass(frozen=True)
class Panorama:
    """Everything that the page shows. `missing`: workers that ought to be there and are not."""

    tiles: list[Tile]
    rows: list[Row]
    missing: int
    at_s: float


class _Latest:
    """The last look of this worker. `_lock` guards it: one thread looks, others wait for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Panorama | None = None

    def look(self) -> Panorama:
        with self._lock:
            if self._last is None or clock.monotonic_s() - self._last.at_s > _FRESH_S:
                with record() as kept:
                    self._last = _look(kept)
            return self._last

    def forget(self) -> None:
        with self._lock:
            self._last = None


_latest = _Latest()
look = _latest.look
"""Return what all workers see, at most a second old: however many watch, a worker asks once."""


def write() -> None:
    """Have this worker write a new value into every alias."""
    value = secrets.token_hex(3)
    me = [worker for worker in worker_rpc.workers() if worker.pid == os.getpid()]

    def question(_alias: str, _number: int) -> Question:
        return {"do": "write", "key": VALUE_KEY, "value": value}

    with record(changing=True) as kept:
        for alias, replies in _ask_about(aliases(), me, question, _CHANGE_S).items():
            kept.put(alias, written=Written(value, os.getpid(), _first_error(replies)))
    _latest.forget()


def increment() -> None:
    """Have all workers together increment a new counter in every alias, `INCREMENTS` times."""
    key = f"_page-count-{secrets.token_hex(4)}"
    there = worker_rpc.workers() * _LINES

    def question(_alias: str, number: int) -> Question:
        times = len(range(number, INCREMENTS, len(there)))
        return {"do": "count", "key": key, "times": times, "within_s": _CHANGE_S - 2}

    with record(changing=True) as kept:
        for alias, replies in _ask_about(aliases(), there, question, _CHANGE_S).items():
            kept.put(alias, counted=_counted(key, replies))
    _latest.forget()


def clear() -> None:
    """Remove the demo's keys, and no others, from every alias, in every worker."""
    with record(changing=True) as kept:

        def question(alias: str, _number: int) -> Question:
            return {"do": "clear", "keys": _keys(kept.of(alias))}

        _ask_about(aliases(), worker_rpc.workers(), question, _CHANGE_S)
        for alias in aliases():
            kept.put(alias, written=None, counted=None)
    _latest.forget()


def _look(kept: Record) -> Panorama:
    there = worker_rpc.workers()
    calls: list[tuple[Worker, Question]] = [(worker, {"do": "present"}) for worker in there]
    present = [reply for reply in worker_rpc.ask(calls, _LOOK_S) if not reply.gone]
    tiles = [_tile(reply) for reply in present]
    missing = max(0, (conf().workers or 0) - len(tiles))
    seen = _sights(kept, aliases(), [reply.worker for reply in present])
    # What comes in between two answers is an expiry or a clear: seen a second time, it is over.
    again = [
        alias
        for alias, sightings in seen.items()
        if judge(kept.of(alias), sightings).verdict is SharingVerdict.BROKEN
    ]
    seen |= _sights(kept, again, [reply.worker for reply in present])
    rows = [_row(alias, kept.of(alias), sightings, missing) for alias, sightings in seen.items()]
    return Panorama(tiles, rows, missing, clock.monotonic_s())


def _sights(kept: Record, about: list[str], there: list[Worker]) -> dict[str, list[Sighting]]:
    def question(alias: str, _number: int) -> Question:
        return {"do": "look", "keys": _keys(kept.of(alias))}

    return {
        alias: [_sighting(reply, kept.of(alias)) for reply in replies]
        for alias, replies in _ask_about(about, there, question, _LOOK_S).items()
    }


def _ask_about(
    about: list[str], there: list[Worker], question: Callable[[str, int], Question], within_s: float
) -> dict[str, list[Reply]]:
    """Ask the workers about all aliases at once: a store that hangs makes no other one late."""
    calls = [
        (worker, {**question(alias, number), "alias": alias})
        for alias in about
        for number, worker in enumerate(there)
    ]
    replies = iter(worker_rpc.ask(calls, within_s))
    return {alias: list(itertools.islice(replies, len(there))) for alias in about}


def _keys(asked: Asked) -> list[str]:
    return [VALUE_KEY, *([asked.counted.key] if asked.counted else [])]


def _tile(reply: Reply) -> Tile:
    said = reply.body or {}
    return Tile(reply.worker.pid, said.get("requests"), said.get("uptime_s"))


def _sighting(reply: Reply, asked: Asked) -> Sighting:
    pid = reply.worker.pid
    if reply.body is None:
        return Sighting(pid, silent=True)
    if error := reply.body.get("error"):
        return Sighting(pid, error=error)
    values = reply.body["values"]
    count = values.get(asked.counted.key) if asked.counted else None
    return Sighting(pid, values[VALUE_KEY], count)


def _row(alias: str, asked: Asked, sightings: list[Sighting], missing: int) -> Row:
    backend = str(settings.CACHES[alias]["BACKEND"])
    return Row(alias, backend, asked, sightings, judge(asked, sightings, missing))


def _counted(key: str, replies: list[Reply]) -> Counted:
    """Sum up what the lines were told; one that said nothing may have done all of its share."""
    told = [number for reply in replies for number in (reply.body or {}).get("told", [])]
    lost = [number for number, reply in enumerate(replies) if reply.body is None]
    shares = [len(range(number, INCREMENTS, len(replies))) for number in lost]
    unknown = sum((reply.body or {}).get("unknown", 0) for reply in replies) + sum(shares)
    repeated = len(told) - len(set(told))
    return Counted(key, INCREMENTS, len(told), unknown, repeated, _first_error(replies))


def _first_error(replies: list[Reply]) -> str:
    """Return what went wrong first, if anything did."""
    for reply in replies:
        if reply.body is None:
            return f"worker {reply.worker.pid} gave no answer in time"
        if error := reply.body.get("error") or reply.body.get("why"):
            return str(error)
    return ""
