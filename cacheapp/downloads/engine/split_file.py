"""A file that several threads fetch in parts, and what these threads share.

The threads that work on a file are equal: each claims a part, fetches it, and claims the next one.
The last of them to leave ends the file: it publishes it, reports why it failed, or starts again.

Invariants:

- Only parts of one representation are stored: each response proves its validator (`PartFetcher`).
  If one does not, `restart` ends all threads, and the last to leave discards the file.
- A thread leaves in the same step in which it finds no free part, or makes its own free again. So
  no part stays free without a thread that works on the file or waits for its next attempt, and
  exactly one thread is the last (`PartWorker.is_last`).
- After the last thread has ended the file (`_ended`), no other enters.
- Bytes are recorded in the journal after they were written (`range_journal`).
"""

import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from cacheapp import clock
from cacheapp.downloads.engine.part_table import Part, PartTable
from cacheapp.downloads.http import connections
from cacheapp.downloads.storage.partial import PartialFile
from cacheapp.downloads.storage.range_journal import RangeJournal, Span
from cacheapp.errors import CacheappError

_LEAST_PARTS = 64
"""The smallest part is this fraction of the size from which files are split."""
_HASHED_READS = 4
"""How much one thread hashes between two reads of its own connection, which waits meanwhile."""


class PartsInTransfer(CacheappError):
    """Other threads are still fetching parts of the file; the last of them ends it."""


@dataclasses.dataclass(eq=False)
class PartWorker:
    """One thread's share in a split file, over all its attempts. The lock of the file guards it."""

    split: "SplitFile"
    tries: int = 0
    tries_without_progress: int = 0
    part: Part | None = None
    handle: connections.SocketHandle = dataclasses.field(default_factory=connections.SocketHandle)
    moved_at_s: float = math.inf
    """When bytes that count as progress last arrived."""
    stored: int = 0
    """Bytes stored in this attempt."""
    wakeup: threading.Event = dataclasses.field(default_factory=threading.Event)
    stalled: str | None = None
    is_last: bool = False
    """Whether it was the last thread to leave, and must end the file."""
    _moved_to: int = 0

    def note_stored(self, count: int, stall_bytes: int) -> None:
        """Record that its connection has brought bytes, which are on disk."""
        self.stored += count
        if self.stored - self._moved_to >= stall_bytes:
            self._moved_to, self.moved_at_s = self.stored, clock.monotonic_s()

    def wait(self, wait_s: float) -> None:
        """Wait for a rate limit, or until `shut_down`. The stall limit does not count it."""
        moved_at_s, began_s = self.moved_at_s, clock.monotonic_s()
        self.moved_at_s = math.inf
        self.wakeup.wait(wait_s)
        self.moved_at_s = moved_at_s + clock.monotonic_s() - began_s

    def shut_down(self) -> None:
        """End the attempt from another thread."""
        self.wakeup.set()
        self.handle.shut_down()

    def note_progress(self, stall_bytes: int) -> None:
        """Reset the count of tries if this attempt has stored enough."""
        if self.stored >= stall_bytes:
            self.tries_without_progress = 0

    def begin(self) -> None:
        """Begin an attempt."""
        self.tries += 1
        self.tries_without_progress += 1
        self.handle, self.stalled, self.is_last = connections.SocketHandle(), None, False
        self.stored = self._moved_to = 0
        self.wakeup.clear()
        self.moved_at_s = clock.monotonic_s()


@dataclasses.dataclass
class Seat:
    """The place of one thread at a file: with a worker once the file is split."""

    worker: PartWorker | None = None

    @property
    def ends_file(self) -> bool:
        """Whether the result of its last attempt is the result of the file."""
        return self.worker is None or self.worker.is_last

    def is_needed(self) -> bool:
        """Return whether another attempt has something to do."""
        return self.worker is None or not self.worker.split.has_ended


class SplitFile:
    """`_lock` guards all mutable fields and those of the workers; `_hashing` guards `hashed`.

    `_lock` is not held during reads and writes of the content.
    """

    def __init__(
        self,
        part: PartialFile,
        spans: Sequence[Span],
        split_from_bytes: int,
        connections: int,
        queue: Callable[[list[PartWorker]], None] | None,
    ) -> None:
        """`spans`: the ranges on disk. `part.size` bytes at the beginning are in its checksums.

        `queue`: has other threads work on the file.
        """
        self._queue = queue
        self.part = part
        self.total = part.total or 0
        self.validator = part.validator or ""
        self.connections = connections
        self.hashed = part.size
        self.must_restart = False
        self.version = "", ""  # ETag and Last-Modified of the parts
        self.refuses_ranges = False
        self._proven = False
        self._is_complete_team = False
        self._ended = False
        self._table = PartTable(self.total, spans, connections, split_from_bytes // _LEAST_PARTS)
        self._active: set[PartWorker] = set()
        self._members = 0  # active, or waiting for their next attempt
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._journal = RangeJournal(part.path, spans)
        part.become_split()
        self._file: int | None = None

    def __repr__(self) -> str:
        return f"<SplitFile {self.bytes_done}/{self.total} active={len(self._active)}>"

    @property
    def bytes_done(self) -> int:
        """The bytes on disk. Read without the lock, so possibly a moment late."""
        return self._table.bytes_done

    @property
    def has_ended(self) -> bool:
        """Whether no thread may enter any more. Once true, it stays so: read without the lock."""
        return self._ended

    # Threads enter and leave.

    def recruit(self) -> None:
        """Queue workers: one until ranges are proven, then all that are missing."""
        workers = self._new_workers()
        if workers and self._queue is not None:
            self._queue(workers)

    def _new_workers(self) -> list[PartWorker]:
        with self._lock:
            wanted = self.connections if self._proven else min(self.connections, 2)
            if self.refuses_ranges or self._ended or self._is_complete_team:
                wanted = 0
            self._is_complete_team = self._proven
            count = max(0, min(wanted - self._members, self._table.free))
            self._members += count
            return [PartWorker(self) for _ in range(count)]

    def found(self, handle: connections.SocketHandle, stream_at: int | None = None) -> PartWorker:
        """Return a worker for the thread that has split the file; it has entered already.

        It has the part at the next byte of its open response, before another thread can claim it.
        """
        worker = PartWorker(self)
        with self._lock:
            self._members += 1
            worker.begin()
            worker.handle = handle
            if stream_at is not None:
                worker.part = self._table.claim(at=stream_at)
            self._active.add(worker)
        return worker

    def enter(self, worker: PartWorker) -> bool:
        """Begin an attempt of a worker; return False if there is nothing to do for it any more."""
        with self._lock:
            if self._ended or (self.refuses_ranges and self._active):
                self._members -= 1
                return False
            worker.begin()
            self._active.add(worker)
            return True

    def open(self) -> None:
        """Open the files, for the workers that have entered."""
        with self._lock:
            if self._file is None:
                self._file = os.open(self.part.path, os.O_RDWR | os.O_CLOEXEC)
                self._journal.open()

    def claim(self, worker: PartWorker, stream_at: int | None = None) -> Part | None:
        """Return the worker's next part; `None` if there is none, and it has left.

        `stream_at`: the next byte of its open response. Such a part is preferred, and while ranges
        are not proven, or are refused, the response is read on.
        """
        with self._lock:
            part = None
            if not self._ended:
                part = self._next(stream_at)
            worker.part = part
            if part is None:
                self._leave(worker, has_failed=False)
            return part

    def _next(self, stream_at: int | None) -> Part | None:
        table = self._table
        if self.refuses_ranges:
            if stream_at is not None and (part := table.claim(stream_at)) is not None:
                return part
            return table.claim() if len(self._active) == 1 else None
        if stream_at is not None and (part := table.claim(at=stream_at)) is not None:
            return part
        # A connection that must prove ranges first does not get in the way of the one that has begun.
        return table.claim(last=not self._proven and len(self._active) > 1)

    def fail(self, worker: PartWorker, *, is_final: bool) -> None:
        """Make the worker's part free, and leave, unless it has left; `is_final`: for good."""
        with self._lock:
            if worker not in self._active:
                return
            if worker.part is not None:
                self._table.release(worker.part)
                worker.part = None
            self._leave(worker, has_failed=not is_final)

    def _leave(self, worker: PartWorker, *, has_failed: bool) -> None:
        self._active.discard(worker)
        worker.moved_at_s = math.inf
        worker.is_last = not self._active
        if worker.is_last:
            self._close_files()
            self._ended = self._ended or not has_failed
        elif not has_failed:
            self._members -= 1

    def give_up(self) -> bool:
        """Count out a worker that is not tried again; return True if it was the last one."""
        with self._lock:
            self._members -= 1
            if self._ended or self._members or self._active:
                return False
            self._ended = True
            return True

    # Other threads.

    def prove(self, headers: Mapping[str, str]) -> None:
        """Record that the server has sent a range with the validator."""
        with self._lock:
            self._proven = True
            self.version = headers.get("etag", ""), headers.get("last-modified", "")

    def newest_version(self, known: tuple[str, str]) -> tuple[str, str]:
        """Return ETag and Last-Modified of the parts; what they lack, as it is known."""
        return self.version[0] or known[0], self.version[1] or known[1]

    def refuse_ranges(self) -> bool:
        """Record that the server sends no ranges; return whether no other thread is at work."""
        with self._lock:
            self.refuses_ranges = True
            return len(self._active) == 1

    def restart(self) -> None:
        """End all threads: the object has changed, or its ranges cannot be relied on."""
        with self._lock:
            self.must_restart = self._ended = True
            self._shut_down_all()

    def interrupt(self) -> None:
        """Shut down all connections."""
        with self._lock:
            self._shut_down_all()

    def is_stalled(self, since_s: float) -> bool:
        """Return whether a worker has received almost no data since that moment."""
        with self._lock:
            return bool(self._stalled(since_s))

    def stall(self, since_s: float, reason: str) -> None:
        """End the attempts of such workers."""
        with self._lock:
            for worker in self._stalled(since_s):
                worker.stalled = reason
                worker.shut_down()

    def _stalled(self, since_s: float) -> list[PartWorker]:
        return [worker for worker in self._active if worker.moved_at_s < since_s]

    def _shut_down_all(self) -> None:
        for worker in self._active:
            worker.shut_down()

    # The content.

    def store(self, worker: PartWorker, view: memoryview) -> None:
        """Write the next bytes of the worker's part, and compute checksums as far as possible."""
        part, file = worker.part, self._file
        if part is None or file is None:
            raise AssertionError(f"{self!r}: stored by a thread that has no part")
        first, count = part.at, len(view)
        written = os.pwrite(file, view, first)
        while written < count:  # a full disk or a signal may cause a short write
            written += os.pwrite(file, view[written:], first + written)
        self._journal.append(first, first + count)
        with self._lock:
            self._table.advance(part, count)
        self._hash(file, first, view)

    def _hash(self, file: int, first: int, view: memoryview) -> None:
        """Add what is on disk to the checksums, unless another thread is at it. `view` is reused."""
        if not self._hashing.acquire(blocking=False):
            return
        try:
            if first == self.hashed:
                self.part.running.update(view)
                self.hashed += len(view)
            self._hash_pieces(file, view)
        finally:
            self._hashing.release()

    def _hash_pieces(self, file: int, view: memoryview) -> None:
        for _ in range(_HASHED_READS):
            if not self._hash_piece(file, view):
                break

    def _hash_piece(self, file: int, view: memoryview) -> int:
        with self._lock:
            left = self._table.prefix - self.hashed
        if left <= 0 or self.part.running.is_empty:
            return 0
        count = os.preadv(file, [view[:left]], self.hashed)
        self.part.running.update(view[:count])
        self.hashed += count
        return count

    def hash_rest(self, view: memoryview, check: Callable[[], None]) -> None:
        """Add the rest of the complete file to the checksums; `check` is called before each piece."""
        if self._table.bytes_done != self.total:
            raise AssertionError(f"{self!r} is not complete")
        with self._hashing, self.part.path.open("rb", buffering=0) as file:
            check()
            for _count in iter(functools.partial(self._hash_piece, file.fileno(), view), 0):
                check()
        self.part.size = self.total

    def _close_files(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
            self._journal.close()

    def remove_journal(self) -> None:
        """Remove the journal, after its partial file is gone or has its final name."""
        self._journal.remove()
