"""Samples of each alias's counters for the last 15 minutes: a small file in `STATE_DIR`, written by one worker.

Every worker has a thread that tries to acquire a lock; the one that has it adds a sample every five
seconds. The kernel releases the lock of a dead worker, and another one goes on with the same file.
The front page's own reads, which are made all the time, are left out.
"""

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.core.cache import caches

from cacheapp import clock
from cacheapp.backends.core.counters import Counters, counters
from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.demo.namespace import aliases
from cacheapp.demo.page_record import read_record_or_none, write_json
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
SHOWN_S = 900.0
_END_S = 1.0
_KEPT = int(SHOWN_S / INTERVAL_S) + 1
_FILE = "stats-ring.json"
_LOCK = "stats-ring.lock"
_FIELDS = (
    *("hits", "misses", "stale_hits", "sets", "deletes", "lease_waits"),
    *("evictions", "bytes_used", "bytes_limit"),
)
_OWN_NAMES = ("hits", "misses")


class Sample(NamedTuple):
    """The counters of all aliases at one wall time; an alias that did not respond is missing."""

    at_s: float
    counts: dict[str, dict[str, int]]


def own_reads(alias: str) -> Counters:
    """Return the counters of the front page's own reads of an alias, of all workers of this machine."""
    directory = private_directory(state_dir()) / "page-reads"
    return counters(directory / alias, _OWN_NAMES, frozenset())


def count_own_read(alias: str, *, hit: bool) -> None:
    """Count a read of the front page, which the charts leave out."""
    if isinstance(caches[alias], SharedCache):
        own_reads(alias).add(0 if hit else 1)


def take_sample() -> Sample:
    """Read the counters of all aliases now."""
    found = {alias: _counts(alias) for alias in aliases()}
    return Sample(clock.wall_s(), {alias: counts for alias, counts in found.items() if counts})


def _counts(alias: str) -> dict[str, int]:
    cache = caches[alias]
    if not isinstance(cache, SharedCache):
        return {}
    try:
        stats: Mapping[str, Any] = cache.stats()
        own = own_reads(alias).totals()
    except CacheappError as exc:
        logger.debug("no sample of %s: %s", alias, exc)
        return {}
    counts = {name: int(stats[name]) for name in _FIELDS if isinstance(stats.get(name), int)}
    return counts | {name: counts.get(name, 0) - own[name] for name in _OWN_NAMES}


def add(sample: Sample) -> None:
    """Append a sample; only the worker that has the lock calls it."""
    directory = private_directory(state_dir())
    write_json(directory / _FILE, [*samples()[-(_KEPT - 1) :], sample])


def samples() -> list[Sample]:
    """Return the samples of the last 15 minutes, oldest first; empty without a file of this version."""
    found = read_record_or_none(_FILE, _parse) or []
    oldest_s = clock.wall_s() - SHOWN_S
    return [sample for sample in found if sample.at_s > oldest_s]


def _parse(raw: Any) -> list[Sample]:
    found = []
    for at_s, counts in raw:
        typed = {
            alias: {name: int(count) for name, count in one.items()}
            for alias, one in counts.items()
        }
        found.append(Sample(float(at_s), typed))
    return found


class Sampler:
    """The thread of one worker that adds samples while it has the lock."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stats-ring", daemon=True)

    def start(self) -> None:
        """Start the thread; without one, another worker samples."""
        with contextlib.suppress(RuntimeError):  # the system allows no thread now
            self._thread.start()

    def stop(self) -> None:
        """Make the thread end, and release the lock."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            directory = private_directory(state_dir())
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            number = os.open(directory / _LOCK, flags, 0o600)
        except (OSError, CacheappError) as exc:
            logger.warning("this worker keeps no samples for the charts: %s", exc)
            return
        try:
            self._sample_under(number)
        finally:
            os.close(number)

    def _sample_under(self, number: int) -> None:
        """Take samples, after this worker got the lock on the open file, until `stop`."""
        has_lock = False
        while not self._stopped.wait(self._interval_s):
            has_lock = has_lock or _acquire(number)
            if has_lock:
                self._sample()

    def _sample(self) -> None:
        try:
            add(take_sample())
        except (OSError, CacheappError) as exc:
            logger.warning("a sample for the charts is missing: %s", exc)


def _acquire(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_started: list[Sampler] = []


def start() -> None:
    """Start the sampler of this worker, after the fork."""
    sampler = Sampler()
    sampler.start()
    _started.append(sampler)


def stop() -> None:
    """Stop the sampler of this worker, if it has one."""
    while _started:
        _started.pop().stop()
