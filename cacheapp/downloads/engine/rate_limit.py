"""Limits the bytes per second of a job, of this process, and of all processes on this machine.

Each limit is a schedule (GCRA, ITU-T I.371): a thread reserves the time that its next read takes at
the limited rate, and reads when the reservations before it have passed. Invariants:

- In any time t, at most `rate * (t + _BURST_S)` bytes and one read are fetched under a limit.
- Threads take turns, each with one short read. A thread whose origin is slow reserves only what its
  origin sends, and returns the rest: no thread uses up, or waits for, the share of another.
- A thread passes the limits from the narrowest to the widest, so a job that waits for its own limit
  reserves nothing of the machine's.

The schedule of the machine is a number in a file in `STATE_DIR`. A process that is killed loses its
reservations, milliseconds at the limited rate; the kernel releases the lock that it held.
"""

import logging
import math
import os
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from cacheapp import clock
from cacheapp.backends.local.boot import boot_id
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.slot_file import SlotFile, open_slot_file
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_BURST_S = 0.1
"""Unused time that can be used later: a thread may wake late."""
_TURN_S = 0.02
_LEAST_BYTES = 4 * 1024
_LOCK_RETRY_S = 0.001
_LOCK_TRIES = 50
_MAX_AHEAD_S = 3600.0
"""No reservation is further ahead, unless the file is damaged."""
_STATE = struct.Struct("=Qd")  # the boot, and the end of all reservations in `clock.boot_s`

Read = Callable[[memoryview], int]
Wait = Callable[[float], None]


class Schedule:
    """The reservations of one limit in this process. `_lock` guards `_end_s`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end_s = 0.0

    def reserve(self, duration_s: float, now_s: float) -> float | None:
        """Return when the reservation begins; `None` if the schedule is locked: try again."""
        with self._lock:
            begin_s = max(self._end_s, now_s - _BURST_S)
            self._end_s = begin_s + duration_s
            return begin_s

    def give_back(self, duration_s: float) -> None:
        """Return a part of a reservation that was not used."""
        with self._lock:
            self._end_s -= duration_s


class SharedSchedule(Schedule):
    """The reservations of all processes on this machine, in a file.

    `_lock` guards `_file` too, as the lock on the file is the whole process's. Without the file,
    the limit is one of this process. A suspended process may hold the lock: nothing waits for it
    but reads, which can be aborted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._boot = 0
        self._file: SlotFile | None = None
        try:
            self._boot = zlib.crc32(boot_id().encode())
            private_directory(path.parent)
            self._open()
        except (OSError, StoreUnavailable) as exc:
            self._give_up(exc)

    def _open(self) -> None:
        self._file = open_slot_file(self._path, 1)

    def _give_up(self, exc: Exception) -> None:
        self._file = None
        logger.warning("no machine-wide limit of the download rate, only one per process: %s", exc)

    def reserve(self, duration_s: float, now_s: float) -> float | None:
        """Return when the reservation begins; `None` if another process has locked the file."""
        if self._file is None:
            return super().reserve(duration_s, now_s)
        return self._move(lambda end_s: max(end_s, now_s - _BURST_S), duration_s, now_s)

    def give_back(self, duration_s: float) -> None:
        """Return a part of a reservation, unless the file stays locked."""
        if self._file is None:
            super().give_back(duration_s)
            return
        for _ in range(_LOCK_TRIES):
            if self._move(lambda end_s: end_s, -duration_s, clock.boot_s()) is not None:
                return
            threading.Event().wait(_LOCK_RETRY_S)

    def _move(
        self, begin: Callable[[float], float], duration_s: float, now_s: float
    ) -> float | None:
        """Move the end to `duration_s` after the begin, which is returned; `None` if locked."""
        with self._lock:
            try:
                if self._file is None or not self._file.is_intact():
                    self._open()
                file = self._file
                if file is None or not file.try_lock(0):
                    return None
                try:
                    begin_s = begin(self._read(file, now_s))
                    state = _STATE.pack(self._boot, begin_s + duration_s)
                    os.pwrite(file.descriptor, state, 0)
                finally:
                    file.unlock(0)
            except OSError as exc:
                self._give_up(exc)
                return None
        return begin_s

    def _read(self, file: SlotFile, now_s: float) -> float:
        """Return the end of all reservations; 0 if there are none since the machine booted."""
        state = os.pread(file.descriptor, _STATE.size, 0)
        boot, end_s = _STATE.unpack(state) if len(state) == _STATE.size else (0, 0.0)
        is_valid = boot == self._boot and math.isfinite(end_s) and end_s < now_s + _MAX_AHEAD_S
        return float(end_s) if is_valid else 0.0


class RateLimiter:
    """One limit: a rate in bytes per second, and the schedule of those that share it."""

    def __init__(self, rate: int, schedule: Schedule) -> None:
        self.rate = rate
        self.schedule = schedule
        self.read_bytes = max(_LEAST_BYTES, int(rate * _TURN_S))
        """Longest read, so that turns are short."""

    def __repr__(self) -> str:
        return f"<RateLimiter {self.rate} bytes/s, {type(self.schedule).__name__}>"

    def wait_for_turn(self, size: int, wait: Wait) -> None:
        """Reserve `size` bytes and wait for their time. If `wait` raises, return them."""
        while (begin_s := self.schedule.reserve(size / self.rate, clock.boot_s())) is None:
            wait(_LOCK_RETRY_S)
        left_s = begin_s - clock.boot_s()
        if left_s <= 0:
            return
        try:
            wait(left_s)
        except BaseException:
            self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        """Return bytes that were reserved and not read."""
        if size:
            self.schedule.give_back(size / self.rate)


class Throttle:
    """The limits of one job, the narrowest first. Without any, a read costs nothing more."""

    def __init__(self, limiters: Sequence[RateLimiter] = ()) -> None:
        self.limiters = tuple(limiters)

    def __bool__(self) -> bool:
        return bool(self.limiters)

    def with_job_limit(self, rate: int | None) -> "Throttle":
        """Return these limits and one for a job; `None`: the same limits."""
        if rate is None:
            return self
        return Throttle([RateLimiter(rate, Schedule()), *self.limiters])

    def limited(self, read: Read, length: int | None, wait: Wait) -> Read:
        """Return a function that reads like `read`, within the limits.

        `length`: the bytes that follow, if known. `wait` waits for so many seconds, or raises.
        """
        if not self.limiters:
            return read
        return _LimitedReader(self.limiters, read, length, wait).readinto


class _LimitedReader:
    """Reads one body within limits. For one thread."""

    def __init__(
        self, limiters: Sequence[RateLimiter], read: Read, length: int | None, wait: Wait
    ) -> None:
        self._limiters = limiters
        self._read = read
        self._wait = wait
        self._left = math.inf if length is None else length
        self._most = min(limiter.read_bytes for limiter in limiters)
        self._expected = self._most

    def readinto(self, view: memoryview) -> int:
        """Read as much as a turn allows; the end of the body takes no turn."""
        size = int(min(len(view), self._expected, self._left))
        if not size:
            return self._read(view)
        passed: list[RateLimiter] = []
        count = 0
        try:
            for limiter in self._limiters:
                limiter.wait_for_turn(size, self._wait)
                passed.append(limiter)
            count = self._read(view[:size])
        finally:
            for limiter in passed:
                limiter.give_back(size - count)
        self._expected = min(self._most, max(2 * count, _LEAST_BYTES))
        self._left -= count
        return count


_lock = threading.Lock()  # guards the two fields below
_by_file: dict[Path, SharedSchedule] = {}
_of_process = Schedule()


def process_limits(machine_file: Path, machine: int | None, process: int | None) -> Throttle:
    """Return the limits of all jobs of this process, in bytes per second; `None`: no limit.

    One schedule for each file, as the kernel's locks belong to the process.
    """
    found = [] if process is None else [RateLimiter(process, _of_process)]
    if machine is not None:
        with _lock:
            schedule = _by_file.get(machine_file)
            if schedule is None:
                schedule = _by_file[machine_file] = SharedSchedule(machine_file)
        found.append(RateLimiter(machine, schedule))
    return Throttle(found)


def _forget() -> None:
    global _lock, _of_process  # noqa: PLW0603
    _lock = threading.Lock()
    _of_process = Schedule()
    _by_file.clear()  # a child process inherits no record locks


os.register_at_fork(after_in_child=_forget)
