"""Fetches one file into a partial file, and renames it once it is complete.

Invariants:

- A final name appears only when the file is complete and matches every known checksum. It never
  replaces a file unless that was requested (`partial.publish`).
- After `abort` has returned, no final name appears: `StopState.lock` is held for the check and the
  rename.
- A partial file holds bytes of the one representation that its name describes. It is continued only
  with a strong validator as proof (`ranges.decide`); otherwise a new one is started.
- Checksums are computed from the bytes as they are written to the file that is renamed. A file that
  an earlier run completed without verifying it is copied and verified too: its checksums are
  fetched again (`RemoteChecksums.fetch`), unless the request gave one.
- A large file is split (`SplitFile`) once there is a response with a strong validator. Then several
  threads run it at the same time; the last one to leave its parts ends the file, as the only one.
"""

import math
from collections.abc import Sequence
from http.client import HTTPException

import urllib3
from urllib3.exceptions import HTTPError

from cacheapp import clock
from cacheapp.downloads.engine.attempt_error import attempt_error
from cacheapp.downloads.engine.part_fetcher import FetchHooks, PartFetcher
from cacheapp.downloads.engine.remote_checksums import RemoteChecksums
from cacheapp.downloads.engine.split_file import PartsInTransfer, PartWorker, Seat, SplitFile
from cacheapp.downloads.engine.stop_state import StopState
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    Existing,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import HTTPClient, Response
from cacheapp.downloads.http.errors import NotModified, TransferAborted, TransferFailed, printable
from cacheapp.downloads.http.ranges import (
    RangeDecision,
    ResumePoint,
    decide,
    is_complete,
    matching_validator,
    range_headers,
    read_content_range,
    strong_validator,
)
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused
from cacheapp.downloads.storage.journal import PublishedFile
from cacheapp.downloads.storage.partial import LeftoverFile, PartialFile, publish
from cacheapp.downloads.storage.range_journal import Span
from cacheapp.downloads.storage.sync_index import set_modified

_OK, _PRECONDITION_FAILED = 200, 412
_MAX_REQUESTS = 4  # requests per attempt: the object may change repeatedly


class Transfer:
    """One file, over all its attempts. Only one thread at a time may call `run` until it is split.

    `tries_without_progress` counts the attempts since the last one that brought bytes to resume from.
    `bytes_done` and `moved_at_s` are written by the running thread and read by others, possibly a
    moment late. `_stop.lock` guards `_split`, and the rename against an abort.
    """

    def __init__(self, options: TransferOptions, policy: UrlPolicy, limits: TransferLimits) -> None:
        self.bytes_done = 0
        self.tries = 0
        self.tries_without_progress = 0
        self.moved_at_s = math.inf  # a transfer that is not running cannot stall
        self._moved_to = 0
        self._progress_to = 0
        self._options = options
        self._policy = policy
        self._limits = limits
        self._size, self._etag = options.size, options.etag
        self._leftover = options.leftover
        self._part: PartialFile | None = None
        self._version = "", ""  # ETag and Last-Modified of the bytes on disk
        self._mismatches = 0
        self._checksums = options.checksums if limits.digest else ()
        self._note = ""
        self._remote = RemoteChecksums(options, limits)
        self._parts = options.parts
        self._stop = StopState(waits=bool(limits.throttle))
        self._split: SplitFile | None = None
        self.was_split = False

    def abort(self, reason: str, *, keep: bool = False) -> None:
        """End `run` soon with `TransferAborted(reason)`, unless the file is already complete.

        `keep`: leave the partial file if it can be resumed from.
        """
        with self._stop.lock:
            self._stop.abort(reason, keep=keep)
            if self._split is not None:
                self._split.interrupt()

    def stall(self, reason: str) -> None:
        """End the attempts that receive almost no data; the next may be faster."""
        with self._stop.lock:
            if self._split is not None:
                self._split.stall(clock.monotonic_s() - self._limits.stall_s, reason)
            else:
                self._stop.stall(reason)

    def is_stalled(self, now_s: float) -> bool:
        """Return whether a connection has received almost no data for too long."""
        split, since_s = self._split, now_s - self._limits.stall_s
        return self.moved_at_s < since_s or (split is not None and split.is_stalled(since_s))

    def run(
        self, pools: urllib3.PoolManager, buffer: Buffer, seat: Seat | None = None
    ) -> FetchedFile:
        """Try to fetch the file.

        Raise `TransferFailed` or `TransferAborted`. If the failure is `retryable`, `run` may be
        called again and resumes from the bytes on disk, until `discard` is called. Without another
        call they stay, for a later run, as after a failure that `keeps_bytes`.
        """
        seat = seat or Seat()
        worker = seat.worker
        handle = self._begin() if worker is None else worker.handle
        connections.bind(handle, self._policy.check_address)
        limits = self._limits
        client = HTTPClient(
            *(pools, self._policy, handle, self._stop.check),
            *(limits.connect_s, limits.read_s, limits.max_redirects, self._options.sign),
        )
        try:
            if worker is not None:
                self.tries += worker.tries > 1
                return self._fetch_parts(client, buffer, seat, worker)
            return self._fetch(client, buffer, seat)
        except (UrlRefused, TransferFailed, HTTPError, HTTPException, OSError) as exc:
            raise self._classify_failure(exc, seat) from exc
        finally:
            self.moved_at_s = math.inf
            handle.detach()
            connections.bind(None)

    def _begin(self) -> connections.SocketHandle:
        self.tries += 1
        self.tries_without_progress += 1
        self.moved_at_s = clock.monotonic_s()
        self._moved_to = self.bytes_done
        return self._stop.begin()

    @property
    def name(self) -> str:
        """The file's final name."""
        return self._options.target.name

    @property
    def total(self) -> int | None:
        """The size of the file, as far as it is known."""
        part = self._part
        return part.total if part is not None and part.total is not None else self._size

    def discard(self) -> None:
        """Remove the partial file: the file will not be tried again."""
        self._remove_partial()
        self._remove_leftover()

    def _remove_partial(self) -> None:
        if self._part is not None:
            self._part.remove()
        self._part, self._split, self.bytes_done = None, None, 0

    def _classify_failure(self, exc: Exception, seat: Seat) -> TransferFailed | TransferAborted:
        """Return the error of the attempt, and remove bytes that cannot be used again."""
        if seat.worker is not None:
            seat.worker.note_progress(self._limits.stall_bytes)
        elif self._part is not None:
            self._part.close()
            # Bytes that the next attempt fetches again are no progress: the tries would never end.
            if self._part.resume_point is None:
                self._remove_partial()
            elif self._part.size - self._progress_to >= self._limits.stall_bytes:
                self._progress_to, self.tries_without_progress = self._part.size, 0
        failed = self._failure(exc, seat.worker)
        kept = self._stop.keep if isinstance(failed, TransferAborted) else failed.keeps_bytes
        if seat.ends_file and not kept:
            self.discard()
        return failed

    def _failure(
        self, exc: Exception, worker: PartWorker | None
    ) -> TransferFailed | TransferAborted:
        stop = self._stop
        with stop.lock:
            aborted, stalled = stop.aborted, stop.stalled if worker is None else worker.stalled
        return attempt_error(exc, aborted, stalled)

    def _fetch(self, client: HTTPClient, buffer: Buffer, seat: Seat) -> FetchedFile:
        self._stop.check()
        if self._leftover is not None and self._part is None:
            self._adopt_leftover(self._leftover, client, buffer)
        part = self._part
        if self._split is not None:
            seat.worker = self._split.found(self._stop.handle)
            return self._fetch_parts(client, buffer, seat, seat.worker)
        if part is None or part.resume_point is None or not is_complete(part.resume_point):
            response, part = self._open_response(client)
            if self._parts > 1 and self._options.can_split(part, response, self._limits):
                return self._fetch_split(client, buffer, seat, part, response)
            whole = False
            try:
                left = None if part.total is None else part.total - part.size
                read = self._limits.throttle.limited(response.readinto, left, self._wait)
                part.store(read, buffer.view(), self._check_chunk, self._on_stored)
                whole = True
            finally:
                self.bytes_done = part.size
                response.release() if whole else response.close()
        return self._finish(part)

    def _fetch_split(
        self, client: HTTPClient, buffer: Buffer, seat: Seat, part: PartialFile, response: Response
    ) -> FetchedFile:
        """Split a file with an open response, and have other threads fetch parts of it too."""
        try:
            split = self._split_file(part, [(0, part.size)] if part.size else [])
            seat.worker = split.found(self._stop.handle, part.size)
            split.recruit()
        except BaseException:
            response.close()
            raise
        return self._fetch_parts(client, buffer, seat, seat.worker, response)

    def _split_file(self, part: PartialFile, spans: Sequence[Span]) -> SplitFile:
        smallest, queue = self._limits.split_from_bytes, self._options.queue_workers
        split = SplitFile(part, spans, smallest, self._parts, queue)
        with self._stop.lock:
            self._split, self.was_split = split, True
        self.moved_at_s = math.inf  # from here on, each worker has its own
        return split

    def _fetch_parts(
        self,
        client: HTTPClient,
        buffer: Buffer,
        seat: Seat,
        worker: PartWorker,
        response: Response | None = None,
    ) -> FetchedFile:
        """Fetch parts until none is free; as the last thread to leave, end the file."""
        split, view = worker.split, buffer.view()

        def on_stored(count: int) -> None:
            worker.note_stored(count, self._limits.stall_bytes)
            self.bytes_done = split.bytes_done
            if self._stop.aborted is not None or worker.stalled is not None:
                raise TransferFailed("stopped")

        hooks = FetchHooks(self._limits.throttle, self._stop.check, self._check_chunk, on_stored)
        fetcher = PartFetcher(worker, client, self._options.url, view, hooks)
        try:
            fetcher.run(response)
        except BaseException as exc:
            failed = self._failure(exc, worker) if isinstance(exc, Exception) else None
            split.fail(worker, is_final=not getattr(failed, "retryable", False))
            if worker.is_last and split.must_restart:
                self._restart(seat, split)
            raise
        if not worker.is_last:
            raise PartsInTransfer
        if split.must_restart:
            self._restart(seat, split)
            raise TransferFailed("the object has changed", retryable=True)
        seat.worker = None
        split.hash_rest(view, self._stop.check)
        self._version = split.newest_version(self._version)
        fetched = self._finish(split.part)
        split.remove_journal()
        return fetched

    def _restart(self, seat: Seat, split: SplitFile) -> None:
        seat.worker = None  # the last thread that works on the file discards it
        if split.refuses_ranges:
            self._parts = 1
        else:
            self._size, self._etag = None, ""  # the object has changed since the listing
        self._remove_partial()

    def _open_response(self, client: HTTPClient) -> tuple[Response, PartialFile]:
        """Return a response, and the partial file to append its body to."""
        for _ in range(_MAX_REQUESTS):
            response = client.get(self._options.url, self._headers())
            self._check_modified(response)
            part = None
            try:
                part = self._choose_partial(response)
            finally:
                if part is None:
                    response.close()
            if part is not None:
                return response, part
        message = f"the object keeps changing; gave up after {_MAX_REQUESTS} requests"
        raise TransferFailed(message, retryable=True)

    def _headers(self) -> dict[str, str]:
        if self._part is not None and self._part.resume_point is not None:
            return range_headers(self._part.resume_point)
        if self._options.known is not None:
            return self._options.known.headers()
        return {"If-Match": self._etag} if self._etag else {}

    def _check_modified(self, response: Response) -> None:
        """Raise `NotModified` if the file on disk is the current version."""
        known = self._options.known
        is_first = self._part is None or self._part.resume_point is None
        if known and is_first and known.is_in(response.status, response.headers, response.lengths):
            response.close() if response.status == _OK else response.release()
            raise NotModified(f"{self.name} is unchanged")

    def _choose_partial(self, response: Response) -> PartialFile | None:
        """Return the partial file for the response's body, or `None` to request it again whole."""
        part = self._part
        resume_point = None if part is None else part.resume_point
        if part is None or resume_point is None:
            if response.status == _OK:
                return self._start_partial(response)
            if response.status != _PRECONDITION_FAILED or not self._etag:
                raise response.to_error()
            self._size, self._etag = None, ""  # the listed object is gone; fetch the current one
            return None
        tag = matching_validator(
            resume_point, response.headers.get("etag"), response.headers.get("last-modified")
        )
        decision = decide(response.status, resume_point, response.headers.get("content-range"), tag)
        if decision is RangeDecision.NOT_A_FILE:
            raise response.to_error()
        if decision is RangeDecision.CONTINUE:
            return self._continue_partial(response, part, resume_point)
        if resume_point.validator != response.headers.get("etag"):
            # The object has changed since the listing.
            self._size, self._etag = None, ""
        self._remove_partial()
        return self._start_partial(response) if decision is RangeDecision.RESTART else None

    def _start_partial(self, response: Response) -> PartialFile:
        """Return a new partial file for a response with the whole body."""
        headers = response.headers
        checksums = self._checksums + self._remote.read(headers, "", whole_object=True)
        total = response.content_length(verified=bool(checksums))
        self._limits.check_length(total or 0)
        if self._size is not None and total is not None and total != self._size:
            raise TransferFailed(f"has {total} bytes; expected {self._size} as listed")
        self._check_free_space(total or 0)
        validator = strong_validator(
            headers.get("etag"), headers.get("last-modified"), headers.get("date")
        )
        coding = headers.get("content-encoding", "identity")
        self._note = "" if coding == "identity" else f"stored with Content-Encoding {coding[:80]}"
        self._remove_partial()
        path = self._options.partial_name.path(total, validator)
        part = self._part = PartialFile(path, checksums, digest=self._limits.digest)
        part.total, part.validator = total, validator
        self._moved_to = 0
        self._version = headers.get("etag", ""), headers.get("last-modified", "")
        return part

    def _continue_partial(
        self, response: Response, part: PartialFile, resume_point: ResumePoint
    ) -> PartialFile:
        response.content_length()
        found = read_content_range(response.headers.get("content-range"))
        total = found.total if found else None
        self._limits.check_length(total or 0)
        self._check_free_space((total or resume_point.size) - resume_point.size)
        part.total = resume_point.total if total is None else total
        etag, modified = self._version  # a 206 may lack what the 200 had
        headers = response.headers
        self._version = headers.get("etag", etag), headers.get("last-modified", modified)
        etag = resume_point.validator
        for sent in self._remote.read(response.headers, etag, whole_object=False):
            if sent not in part.checksums and part.running.digest(sent.algorithm) is not None:
                part.checksums += (sent,)
        return part

    def _adopt_leftover(self, leftover: LeftoverFile, client: HTTPClient, buffer: Buffer) -> None:
        """Copy an earlier run's partial file to one of this run, computing its checksums."""
        options, digest = self._options, self._limits.digest
        checksums = self._checksums
        if digest and is_complete(leftover.resume_point) and not checksums:
            found = self._remote.fetch(leftover.resume_point, client)
            if found is None:
                self._remove_leftover()
                return
            checksums = found
        self._check_free_space(leftover.resume_point.size)
        path = options.partial_name.path(
            leftover.resume_point.total, leftover.resume_point.validator
        )
        # A power cut may have damaged these bytes, which an ETag may detect. It is no proof: if it
        # differs, the file is fetched again, and compared with declared checksums only.
        also = {"md5"} if options.etag and digest else set()
        part = self._part = PartialFile(path, checksums, digest=digest, also=also)
        if leftover.spans is not None:
            self._adopt_ranges(part, leftover, buffer)
            return
        with leftover.path.open("rb", buffering=0) as file:
            part.store(
                lambda view: file.readinto(view) or 0,
                buffer.view(),
                self._check_chunk,
                self._on_stored,
            )
        part.total, part.validator = leftover.resume_point.total, leftover.resume_point.validator
        self._progress_to = part.size
        self._remove_leftover()

    def _adopt_ranges(self, part: PartialFile, leftover: LeftoverFile, buffer: Buffer) -> None:
        self._check_free_space(leftover.resume_point.total or 0)
        try:
            part.copy_ranges(leftover, buffer.view(), self._on_stored)
            self._split_file(part, leftover.spans or ())
        except BaseException:
            self._remove_partial()
            raise
        self._remove_leftover()

    def _remove_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.remove()
            self._leftover = None

    def _check_chunk(self, before: int, count: int) -> None:
        """Raise `TransferFailed` if a chunk must not be written."""
        self._limits.check_chunk(self._options.partial_name.directory, before, count)

    def _wait(self, wait_s: float) -> None:
        """Wait for a rate limit, unless the transfer is stopped. The stall limit ignores it."""
        moved_at_s, began_s = self.moved_at_s, clock.monotonic_s()
        self.moved_at_s = math.inf
        try:
            self._stop.wait(wait_s)
        finally:
            self.moved_at_s = moved_at_s + clock.monotonic_s() - began_s

    def _on_stored(self, size: int) -> None:
        """Record that the partial file has grown to `size`."""
        self.bytes_done = size
        if size - self._moved_to >= self._limits.stall_bytes:
            self._moved_to, self.moved_at_s = size, clock.monotonic_s()
        # After the write, which keeps the bytes; read without the lock, so one chunk late.
        if self._stop.is_requested:
            raise TransferFailed("stopped")

    def _finish(self, part: PartialFile) -> FetchedFile:
        self.bytes_done = part.size
        if part.total is not None and part.size > part.total:
            self._remove_partial()
            raise TransferFailed("has more bytes than announced", retryable=True)
        if part.total is not None and part.size != part.total:
            message = f"ended after {part.size} of {part.total} bytes"
            raise TransferFailed(message, retryable=True)
        if (mismatch := part.running.mismatch(part.checksums)) is not None:
            self._remove_partial()
            # Possibly corrupted in transit: try once more, from the first byte.
            self._mismatches += 1
            raise TransferFailed(mismatch, retryable=self._mismatches == 1)
        if self._limits.fsync:
            part.sync()
        with self._stop.lock:
            if self._stop.aborted is not None:
                raise TransferFailed("stopped")
            fetched = self._publish(part)
        self._part = None
        return fetched

    def _publish(self, part: PartialFile) -> FetchedFile:
        """Record the file in the journal, and rename it."""
        options, limits = self._options, self._limits
        sha256 = (part.running.digest("sha256") or b"").hex()
        mtime_ns = set_modified(part.path, self._version[1]) if options.sync else 0
        if options.journal is not None:
            inode = part.path.stat().st_ino
            options.journal.append(
                options.partial_name.position, PublishedFile(part.size, sha256, inode)
            )
        replace = limits.existing is Existing.REPLACE
        publish(part.path, options.target, replace=replace, fsync=limits.fsync)
        of_sync = (*self._version, mtime_ns) if options.sync else ()
        return FetchedFile(part.size, sha256, printable(self._note), *of_sync)

    def _check_free_space(self, needed: int) -> None:
        self._limits.check_free_space(self._options.partial_name.directory, needed)
