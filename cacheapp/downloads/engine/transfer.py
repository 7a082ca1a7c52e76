"""Fetches one file: to a partial file beside the target, renamed when it is whole, or not at all.

Invariants:
- A final name appears only when the file is whole, has every sum that it was told to have, and
  never replaces a file unless that was asked for (`partial.publish`).
- After `abort` has returned, no final name appears (`_lock` is held for the check and the rename).
- A partial file holds bytes of the one representation that its name tells (`partial`): what is
  continued is proved by a strong validator (`ranges.decide`), everything else begins a new one.
- The sums are of the bytes in the file that is renamed: counted and added as they are written. A
  file that an earlier run left complete, without having checked it, is no exception: its sums are
  told anew (`_tell_sums`), unless the order gave one.
"""

import math
import threading
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

_OK, _PRECONDITION_FAILED = 200, 412
_ROUNDS = 4  # requests of one try: the object may change, and change again


class Transfer:
    """One file on its way, over all its tries. `run` belongs to one thread at a time.

    `bytes_done` and `moved_at_s` are written by the running thread alone and read by others, who
    may see them a moment late. `_lock` guards `_aborted`, `_keep`, `_stalled` and `_handle`, and the
    rename against an abort.
    """

    def __init__(self, wanted: TransferOptions, policy: UrlPolicy, limits: TransferLimits) -> None:
        self.bytes_done = 0
        self.tries = 0
        self.moved_at_s = math.inf  # what does not run cannot stall
        self._wanted = wanted
        self._policy = policy
        self._limits = limits
        self._size, self._etag = wanted.size, wanted.etag
        self._leftover = wanted.leftover
        self._part: PartialFile | None = None
        self._wrong_sums = 0
        self._lock = threading.Lock()
        self._handle = connections.SocketHandle()
        self._aborted: str | None = None
        self._stalled: str | None = None
        self._keep = False

    def abort(self, reason: str, *, keep: bool = False) -> None:
        """Make `run` end soon, with `TransferAborted(reason)`; unless the file is whole by now.

        `keep`: leave the partial file, if it can be gone on from.
        """
        with self._lock:
            if self._aborted is None:
                self._aborted, self._keep = reason, keep
            handle = self._handle
        handle.cut()

    def stall(self, reason: str) -> None:
        """End this try, which gets next to nothing; another may do better."""
        with self._lock:
            self._stalled = reason
            handle = self._handle
        handle.cut()

    def is_stalled(self, now_s: float) -> bool:
        """Return whether too little has come for too long."""
        return now_s - self.moved_at_s > self._limits.stall_s

    def run(self, client: urllib3.PoolManager, buffer: Buffer) -> FetchedFile:
        """Try to fetch the file.

        Raise `TransferFailed`; where its `retryable` says so, `run` may be called once more, and goes
        on from the bytes that are there, until `discard` is called. Or raise `TransferAborted`.
        """
        self.tries += 1
        self.moved_at_s = clock.monotonic_s()
        with self._lock:
            handle = self._handle = connections.SocketHandle()
            self._stalled = None
        connections.use(handle, self._policy.check_address)
        limits = self._limits
        asker = HTTPClient(
            *(client, self._policy, handle, self._check),
            *(limits.connect_s, limits.read_s, limits.max_redirects, self._wanted.sign),
        )
        try:
            return self._fetch(asker, buffer)
        except (UrlRefused, TransferFailed, HTTPError, HTTPException, OSError) as exc:
            raise self._ended(exc) from exc
        finally:
            self.moved_at_s = math.inf
            handle.release()
            connections.use(None)

    @property
    def name(self) -> str:
        """The file's final name."""
        return self._wanted.target.name

    @property
    def total(self) -> int | None:
        """How many bytes the file has, as far as is known."""
        part = self._part
        return part.total if part is not None and part.total is not None else self._size

    def discard(self) -> None:
        """Remove the partial file: the file is given up."""
        self._drop()
        self._drop_leftover()

    def _drop(self) -> None:
        if self._part is not None:
            self._part.remove()
        self._part, self.bytes_done = None, 0

    def _ended(self, exc: Exception) -> TransferFailed | TransferAborted:
        """Return what ended the try, and drop the bytes that are of no more use."""
        with self._lock:
            aborted, stalled, keep = self._aborted, self._stalled, self._keep
        if self._part is not None:
            self._part.close()
            if self._part.resume_point is None:
                self._drop()
        if aborted is not None:  # what the cut looked like from here is of no interest
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

    def _check(self) -> None:
        with self._lock:
            if self._aborted is not None or self._stalled is not None:
                raise TransferFailed("stopped")

    def _fetch(self, asker: HTTPClient, buffer: Buffer) -> FetchedFile:
        self._check()
        if self._leftover is not None and self._part is None:
            self._take_over(self._leftover, asker, buffer)
        if self._part is None or not (
            self._part.resume_point and is_complete(self._part.resume_point)
        ):
            response, part = self._ask(asker)
            whole = False
            try:
                part.store(response.readinto, buffer.view(), self._hear)
                whole = True
            finally:
                self.bytes_done = part.size
                response.leave() if whole else response.close()
        else:
            part = self._part
        return self._finish(part)

    def _ask(self, asker: HTTPClient) -> tuple[Response, PartialFile]:
        """Return an answer, and the partial file that its body is to be appended to."""
        for _ in range(_ROUNDS):
            response = asker.ask(self._wanted.url, self._headers())
            part = None
            try:
                part = self._placed(response)
            finally:
                if part is None:
                    response.close()
            if part is not None:
                return response, part
        raise TransferFailed("the object changes all the time", retryable=True)

    def _headers(self) -> dict[str, str]:
        if self._part is not None and self._part.resume_point is not None:
            return range_headers(self._part.resume_point)
        return {"If-Match": self._etag} if self._etag else {}

    def _placed(self, response: Response) -> PartialFile | None:
        """Return where the answer's body goes; `None` to ask anew, for the whole file."""
        part, resume_point = self._part, self._part.resume_point if self._part is not None else None
        if part is None or resume_point is None:
            if response.status == _OK:
                return self._begun(response)
            if response.status != _PRECONDITION_FAILED or not self._etag:
                raise response.failure()
            self._size, self._etag = None, ""  # the object that was listed is gone; take this one
            return None
        tag = matching_validator(
            resume_point, response.headers.get("etag"), response.headers.get("last-modified")
        )
        decision = decide(response.status, resume_point, response.headers.get("content-range"), tag)
        if decision is RangeDecision.NOT_A_FILE:
            raise response.failure()
        if decision is RangeDecision.CONTINUE:
            return self._continued(response, part, resume_point)
        if resume_point.validator != response.headers.get(
            "etag"
        ):  # it is no longer what was listed
            self._size, self._etag = None, ""
        self._drop()
        return self._begun(response) if decision is RangeDecision.RESTART else None

    def _begun(self, response: Response) -> PartialFile:
        """Return a new partial file for an answer that brings the whole."""
        total = response.content_length()
        self._limits.check_length(total or 0)
        if self._size is not None and total is not None and total != self._size:
            raise TransferFailed(f"has {total} bytes; the listing says {self._size}")
        headers = response.headers
        self._check_free_space(total or 0)
        validator = strong_validator(
            headers.get("etag"), headers.get("last-modified"), headers.get("date")
        )
        of_s3 = headers.get("etag", "") if self._wanted.etag else ""
        checksums = self._wanted.checksums + checksums_from_headers(headers, of_s3, of_all=True)
        self._drop()
        path = self._wanted.stem.path(total, validator)
        part = self._part = PartialFile(path, checksums, digest=self._limits.digest)
        part.total, part.validator = total, validator
        return part

    def _continued(
        self, response: Response, part: PartialFile, resume_point: ResumePoint
    ) -> PartialFile:
        response.content_length()
        found = read_content_range(response.headers.get("content-range"))
        total = found.total if found else None
        self._limits.check_length(total or 0)
        self._check_free_space((total or resume_point.size) - resume_point.size)
        part.total = resume_point.total if total is None else total
        of_s3 = resume_point.validator if self._wanted.etag else ""
        for told in checksums_from_headers(response.headers, of_s3, of_all=False):
            if told not in part.checksums and part.running.digest(told.algorithm) is not None:
                part.checksums += (told,)
        return part

    def _take_over(self, left: LeftoverFile, asker: HTTPClient, buffer: Buffer) -> None:
        """Copy what an earlier run left to a file of our own, and make its sums on the way."""
        wanted, digest = self._wanted, self._limits.digest
        checksums = wanted.checksums
        if is_complete(left.resume_point) and not checksums:
            told = self._tell_sums(left.resume_point, asker)
            if told is None:
                self._drop_leftover()
                return
            checksums = told
        self._check_free_space(left.resume_point.size)
        path = wanted.stem.path(left.resume_point.total, left.resume_point.validator)
        also = {"md5"} if wanted.etag else set()  # the next answer says whether its tag is one
        part = self._part = PartialFile(path, checksums, digest=digest, also=also)
        with left.path.open("rb", buffering=0) as file:
            part.store(lambda view: file.readinto(view) or 0, buffer.view(), self._hear)
        part.total, part.validator = left.resume_point.total, left.resume_point.validator
        self._drop_leftover()

    def _tell_sums(
        self, resume_point: ResumePoint, asker: HTTPClient
    ) -> tuple[Checksum, ...] | None:
        """Return the sums of a file that is complete on disk; `None` if it is no more what is there.

        Only the head of an answer tells them all: its body is not read, but given up.
        """
        response = asker.ask(self._wanted.url, {})
        try:
            if response.status != _OK:
                raise response.failure()
            headers, total = response.headers, response.content_length()
        finally:
            response.close()
        tag = matching_validator(resume_point, headers.get("etag"), headers.get("last-modified"))
        if tag != resume_point.validator or total not in {None, resume_point.total}:
            return None
        of_s3 = resume_point.validator if self._wanted.etag else ""
        return checksums_from_headers(headers, of_s3, of_all=True)

    def _drop_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.path.unlink(missing_ok=True)
            self._leftover = None

    def _hear(self, before: int, count: int) -> None:
        """Take note of a chunk that is about to be written."""
        self._limits.check_length(before + count, "more")
        if before // FREE_SPACE_CHECK_BYTES != (before + count) // FREE_SPACE_CHECK_BYTES:
            self._check_free_space(0)
        self.bytes_done = before  # written by now; this chunk is with the next
        self.moved_at_s = clock.monotonic_s()
        if self._aborted is not None or self._stalled is not None:  # a late look costs one chunk
            raise TransferFailed("stopped")

    def _finish(self, part: PartialFile) -> FetchedFile:
        self.bytes_done = part.size
        if part.total is not None and part.size > part.total:
            self._drop()
            raise TransferFailed("has more bytes than it said", retryable=True)
        if part.total is not None and part.size != part.total:
            message = f"broke off after {part.size} bytes of {part.total}"
            raise TransferFailed(message, retryable=True)
        if (wrong := part.running.wrong(part.checksums)) is not None:
            self._drop()
            self._wrong_sums += 1  # on the way, perhaps: once more, from the first byte
            raise TransferFailed(wrong, retryable=self._wrong_sums == 1)
        if self._limits.fsync:
            part.sync()
        sha256 = (part.running.digest("sha256") or b"").hex()
        with self._lock:
            if self._aborted is not None:
                raise TransferFailed("stopped")
            self._publish(part, sha256)
        self._part = None
        return FetchedFile(part.size, sha256)

    def _publish(self, part: PartialFile, sha256: str) -> None:
        wanted, limits = self._wanted, self._limits
        if wanted.journal is not None:
            inode = part.path.stat().st_ino
            wanted.journal.append(wanted.stem.position, PublishedFile(part.size, sha256, inode))
        replace = limits.existing is Existing.REPLACE
        publish(part.path, wanted.target, replace=replace, fsync=limits.fsync)

    def _check_free_space(self, wanted: int) -> None:
        self._limits.check_free_space(self._wanted.stem.directory, wanted)
