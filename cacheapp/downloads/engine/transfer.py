"""Fetches one file into a partial file, and renames it once it is complete.

Invariants:

- A final name appears only when the file is complete and matches every known checksum. It never
  replaces a file unless that was requested (`partial.publish`).
- After `abort` has returned, no final name appears: `_lock` is held for the check and the rename.
- A partial file holds bytes of the one representation that its name describes. It is continued only
  with a strong validator as proof (`ranges.decide`); otherwise a new one is started.
- Checksums are computed from the bytes as they are written to the file that is renamed. A file that
  an earlier run completed without verifying it is copied and verified too: its checksums are
  fetched again (`_fetch_checksums`), unless the request gave one.
"""

import math
import threading
from collections.abc import Mapping
from http.client import HTTPException

import urllib3
from urllib3.exceptions import HTTPError

from cacheapp import clock
from cacheapp.downloads.engine.transfer_options import (
    FREE_SPACE_CHECK_BYTES,
    Buffer,
    Existing,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import HTTPClient, Response
from cacheapp.downloads.http.errors import (
    NotModified,
    TransferAborted,
    TransferFailed,
    printable,
    translate_error,
)
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
from cacheapp.downloads.storage.checksums import Checksum, checksums_from_headers
from cacheapp.downloads.storage.journal import PublishedFile
from cacheapp.downloads.storage.partial import LeftoverFile, PartialFile, publish
from cacheapp.downloads.storage.sync_index import set_modified

_OK, _PRECONDITION_FAILED = 200, 412
_MAX_REQUESTS = 4  # requests per attempt: the object may change repeatedly


class Transfer:
    """One file, over all its attempts. Only one thread at a time may call `run`.

    `tries_without_progress` counts the attempts since the last one that brought bytes to resume from.
    `bytes_done` and `moved_at_s` are written by the running thread and read by others, possibly a
    moment late. `_lock` guards `_aborted`, `_keep`, `_stalled` and `_handle`, and the rename
    against an abort.
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
        self._lock = threading.Lock()
        self._handle = connections.SocketHandle()
        self._aborted: str | None = None
        self._stalled: str | None = None
        self._keep = False
        self._wakeup = threading.Event() if limits.throttle else None

    def abort(self, reason: str, *, keep: bool = False) -> None:
        """End `run` soon with `TransferAborted(reason)`, unless the file is already complete.

        `keep`: leave the partial file if it can be resumed from.
        """
        with self._lock:
            if self._aborted is None:
                self._aborted, self._keep = reason, keep
            handle = self._handle
        self._shut_down(handle)

    def stall(self, reason: str) -> None:
        """End this attempt, which receives almost no data; the next may be faster."""
        with self._lock:
            self._stalled = reason
            handle = self._handle
        self._shut_down(handle)

    def _shut_down(self, handle: connections.SocketHandle) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
        handle.shut_down()

    def is_stalled(self, now_s: float) -> bool:
        """Return whether almost no data has arrived for too long."""
        return now_s - self.moved_at_s > self._limits.stall_s

    def run(self, pools: urllib3.PoolManager, buffer: Buffer) -> FetchedFile:
        """Try to fetch the file.

        Raise `TransferFailed` or `TransferAborted`. If the failure is `retryable`, `run` may be
        called again and resumes from the bytes on disk, until `discard` is called. Without another
        call they stay, for a later run.
        """
        self.tries += 1
        self.tries_without_progress += 1
        self.moved_at_s = clock.monotonic_s()
        self._moved_to = self.bytes_done
        with self._lock:
            handle = self._handle = connections.SocketHandle()
            self._stalled = None
            if self._wakeup is not None:
                self._wakeup.clear()  # an abort is found by `_check`
        connections.bind(handle, self._policy.check_address)
        limits = self._limits
        client = HTTPClient(
            *(pools, self._policy, handle, self._check),
            *(limits.connect_s, limits.read_s, limits.max_redirects, self._options.sign),
        )
        try:
            return self._fetch(client, buffer)
        except (UrlRefused, TransferFailed, HTTPError, HTTPException, OSError) as exc:
            raise self._classify_failure(exc) from exc
        finally:
            self.moved_at_s = math.inf
            handle.detach()
            connections.bind(None)

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
        self._part, self.bytes_done = None, 0

    def _classify_failure(self, exc: Exception) -> TransferFailed | TransferAborted:
        """Return the error of the attempt, and remove bytes that cannot be used again."""
        with self._lock:
            aborted, stalled, keep = self._aborted, self._stalled, self._keep
        if self._part is not None:
            self._part.close()
            if self._part.resume_point is None:
                self._remove_partial()
        self._note_progress()
        if aborted is not None:  # the error is only a result of the shutdown of the socket
            if not keep:
                self.discard()
            return TransferAborted(aborted)
        if stalled is not None:
            return TransferFailed(stalled, retryable=True, slow_down=True)
        if isinstance(exc, UrlRefused):
            exc = TransferFailed(str(exc))
        failed = translate_error(exc)
        failed.args = (printable(str(failed)),)
        if not failed.retryable:
            self.discard()
        return failed

    def _note_progress(self) -> None:
        """Reset the count of tries if there are enough new bytes to resume from.

        Bytes that the next attempt fetches again are no progress: the tries would never end.
        """
        part = self._part
        if part is not None and part.size - self._progress_to >= self._limits.stall_bytes:
            self._progress_to, self.tries_without_progress = part.size, 0

    def _check(self) -> None:
        with self._lock:
            if self._aborted is not None or self._stalled is not None:
                raise TransferFailed("stopped")

    def _fetch(self, client: HTTPClient, buffer: Buffer) -> FetchedFile:
        self._check()
        if self._leftover is not None and self._part is None:
            self._adopt_leftover(self._leftover, client, buffer)
        part = self._part
        if part is None or part.resume_point is None or not is_complete(part.resume_point):
            response, part = self._open_response(client)
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
        checksums = self._checksums + self._checksums_in(headers, "", whole_object=True)
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
        for sent in self._checksums_in(response.headers, etag, whole_object=False):
            if sent not in part.checksums and part.running.digest(sent.algorithm) is not None:
                part.checksums += (sent,)
        return part

    def _adopt_leftover(self, leftover: LeftoverFile, client: HTTPClient, buffer: Buffer) -> None:
        """Copy an earlier run's partial file to one of this run, computing its checksums."""
        options, digest = self._options, self._limits.digest
        checksums = self._checksums
        if digest and is_complete(leftover.resume_point) and not checksums:
            found = self._fetch_checksums(leftover.resume_point, client)
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

    def _fetch_checksums(
        self, resume_point: ResumePoint, client: HTTPClient
    ) -> tuple[Checksum, ...] | None:
        """Return the checksums of a file complete on disk; `None` if the object has changed.

        They arrive in the head of a response. Its body is not read; the connection is closed.
        """
        response = client.get(self._options.url, {})
        try:
            if response.status != _OK:
                raise response.to_error()
            headers, total = response.headers, response.content_length()
        finally:
            response.close()
        tag = matching_validator(resume_point, headers.get("etag"), headers.get("last-modified"))
        if tag != resume_point.validator or total not in {None, resume_point.total}:
            return None
        return self._checksums_in(headers, resume_point.validator, whole_object=True)

    def _checksums_in(
        self, headers: Mapping[str, str], etag: str, *, whole_object: bool
    ) -> tuple[Checksum, ...]:
        """Return the checksums to verify; `etag`: "" unless the file has bytes of an earlier run."""
        if not self._limits.digest:
            return ()
        of_s3 = etag if self._options.etag else ""
        return checksums_from_headers(headers, of_s3, whole_object=whole_object)

    def _remove_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.path.unlink(missing_ok=True)
            self._leftover = None

    def _check_chunk(self, before: int, count: int) -> None:
        """Raise `TransferFailed` if a chunk must not be written."""
        self._limits.check_length(before + count, "more")
        if before // FREE_SPACE_CHECK_BYTES != (before + count) // FREE_SPACE_CHECK_BYTES:
            self._check_free_space(0)

    def _wait(self, wait_s: float) -> None:
        """Wait for a rate limit, unless the transfer is stopped. The stall limit does not count it."""
        if self._wakeup is None:
            raise AssertionError("a transfer without a rate limit waits for one")
        moved_at_s, began_s = self.moved_at_s, clock.monotonic_s()
        self.moved_at_s = math.inf
        try:
            self._wakeup.wait(wait_s)
            self._check()
        finally:
            self.moved_at_s = moved_at_s + clock.monotonic_s() - began_s

    def _on_stored(self, size: int) -> None:
        """Record that the partial file has grown to `size`."""
        self.bytes_done = size
        if size - self._moved_to >= self._limits.stall_bytes:
            self._moved_to, self.moved_at_s = size, clock.monotonic_s()
        # After the write, which keeps the bytes; read without the lock, so one chunk late.
        if self._aborted is not None or self._stalled is not None:
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
        sha256 = (part.running.digest("sha256") or b"").hex()
        with self._lock:
            if self._aborted is not None:
                raise TransferFailed("stopped")
            mtime_ns = self._publish(part, sha256)
        self._part = None
        version = (*self._version, mtime_ns) if self._options.sync else ()
        return FetchedFile(part.size, sha256, printable(self._note), *version)

    def _publish(self, part: PartialFile, sha256: str) -> int:
        """Rename the file; return its modification time in ns, or 0 without `sync`."""
        options, limits = self._options, self._limits
        mtime_ns = set_modified(part.path, self._version[1]) if options.sync else 0
        if options.journal is not None:
            inode = part.path.stat().st_ino
            options.journal.append(
                options.partial_name.position, PublishedFile(part.size, sha256, inode)
            )
        replace = limits.existing is Existing.REPLACE
        publish(part.path, options.target, replace=replace, fsync=limits.fsync)
        return mtime_ns

    def _check_free_space(self, options: int) -> None:
        self._limits.check_free_space(self._options.partial_name.directory, options)
