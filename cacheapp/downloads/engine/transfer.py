"""Fetches one file: to a partial file beside the target, renamed when it is whole, or not at all.

Invariants:
- A final name appears only when the file is whole, has every sum that it was told to have, and
  never replaces a file unless that was asked for (`partial.publish`).
- After `abort` has returned, no final name appears (`_lock` is held for the check and the rename).
- A partial file holds bytes of the one representation that its name tells (`partial`): what is
  continued is proved by a strong validator (`ranges.judge`), everything else begins a new one.
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
    LOOK_FOR_ROOM_BYTES,
    Buffer,
    Existing,
    Fetched,
    Limits,
    Wanted,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import Answer, Asker
from cacheapp.downloads.http.errors import TransferAborted, TransferFailed, explained, printable
from cacheapp.downloads.http.ranges import (
    Have,
    Verdict,
    judge,
    needs_nothing,
    range_headers,
    read_content_range,
    same_kind,
    validator_of,
)
from cacheapp.downloads.http.url_policy import Guard, UrlRefused
from cacheapp.downloads.storage.checksums import Sum, sums_told
from cacheapp.downloads.storage.journal import Published
from cacheapp.downloads.storage.partial import Leftover, Part, publish

_OK, _PRECONDITION_FAILED = 200, 412
_ROUNDS = 4  # requests of one try: the object may change, and change again


class Transfer:
    """One file on its way, over all its tries. `run` belongs to one thread at a time.

    `bytes_done` and `moved_at_s` are written by the running thread alone and read by others, who
    may see them a moment late. `_lock` guards `_aborted`, `_keep`, `_stalled` and `_line`, and the
    rename against an abort.
    """

    def __init__(self, wanted: Wanted, guard: Guard, limits: Limits) -> None:
        self.bytes_done = 0
        self.tries = 0
        self.moved_at_s = math.inf  # what does not run cannot stall
        self._wanted = wanted
        self._guard = guard
        self._limits = limits
        self._size, self._etag = wanted.size, wanted.etag
        self._leftover = wanted.leftover
        self._part: Part | None = None
        self._wrong_sums = 0
        self._lock = threading.Lock()
        self._line = connections.Line()
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
            line = self._line
        line.cut()

    def stall(self, reason: str) -> None:
        """End this try, which gets next to nothing; another may do better."""
        with self._lock:
            self._stalled = reason
            line = self._line
        line.cut()

    def is_stalled(self, now_s: float) -> bool:
        """Return whether too little has come for too long."""
        return now_s - self.moved_at_s > self._limits.stall_s

    def run(self, client: urllib3.PoolManager, buffer: Buffer) -> Fetched:
        """Try to fetch the file.

        Raise `TransferFailed`; where its `again` says so, `run` may be called once more, and goes
        on from the bytes that are there, until `discard` is called. Or raise `TransferAborted`.
        """
        self.tries += 1
        self.moved_at_s = clock.monotonic_s()
        with self._lock:
            line = self._line = connections.Line()
            self._stalled = None
        connections.use(line, self._guard.check_address)
        limits = self._limits
        asker = Asker(
            *(client, self._guard, line, self._check),
            *(limits.connect_s, limits.read_s, limits.max_redirects, self._wanted.sign),
        )
        try:
            return self._fetch(asker, buffer)
        except (UrlRefused, TransferFailed, HTTPError, HTTPException, OSError) as exc:
            raise self._ended(exc) from exc
        finally:
            self.moved_at_s = math.inf
            line.release()
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
            if self._part.have is None:
                self._drop()
        if aborted is not None:  # what the cut looked like from here is of no interest
            if not keep:
                self.discard()
            return TransferAborted(aborted)
        if stalled is not None:
            return TransferFailed(stalled, again=True, slow_down=True)
        if isinstance(exc, UrlRefused):
            exc = TransferFailed(str(exc))
        failed = explained(exc)
        failed.args = (printable(str(failed)),)
        if not failed.again:
            self.discard()
        return failed

    def _check(self) -> None:
        with self._lock:
            if self._aborted is not None or self._stalled is not None:
                raise TransferFailed("stopped")

    def _fetch(self, asker: Asker, buffer: Buffer) -> Fetched:
        self._check()
        if self._leftover is not None and self._part is None:
            self._take_over(self._leftover, asker, buffer)
        if self._part is None or not (self._part.have and needs_nothing(self._part.have)):
            answer, part = self._ask(asker)
            whole = False
            try:
                part.store(answer.readinto, buffer.view(), self._hear)
                whole = True
            finally:
                self.bytes_done = part.size
                answer.leave() if whole else answer.close()
        else:
            part = self._part
        return self._finish(part)

    def _ask(self, asker: Asker) -> tuple[Answer, Part]:
        """Return an answer, and the partial file that its body is to be appended to."""
        for _ in range(_ROUNDS):
            answer = asker.ask(self._wanted.url, self._headers())
            part = None
            try:
                part = self._placed(answer)
            finally:
                if part is None:
                    answer.close()
            if part is not None:
                return answer, part
        raise TransferFailed("the object changes all the time", again=True)

    def _headers(self) -> dict[str, str]:
        if self._part is not None and self._part.have is not None:
            return range_headers(self._part.have)
        return {"If-Match": self._etag} if self._etag else {}

    def _placed(self, answer: Answer) -> Part | None:
        """Return where the answer's body goes; `None` to ask anew, for the whole file."""
        part, have = self._part, self._part.have if self._part is not None else None
        if part is None or have is None:
            if answer.status == _OK:
                return self._begun(answer)
            if answer.status != _PRECONDITION_FAILED or not self._etag:
                raise answer.failure()
            self._size, self._etag = None, ""  # the object that was listed is gone; take this one
            return None
        tag = same_kind(have, answer.headers.get("etag"), answer.headers.get("last-modified"))
        verdict = judge(answer.status, have, answer.headers.get("content-range"), tag)
        if verdict is Verdict.NO_FILE:
            raise answer.failure()
        if verdict is Verdict.CONTINUE:
            return self._continued(answer, part, have)
        if have.validator != answer.headers.get("etag"):  # it is no longer what was listed
            self._size, self._etag = None, ""
        self._drop()
        return self._begun(answer) if verdict is Verdict.ANEW else None

    def _begun(self, answer: Answer) -> Part:
        """Return a new partial file for an answer that brings the whole."""
        total = answer.announced()
        self._limits.check_length(total or 0)
        if self._size is not None and total is not None and total != self._size:
            raise TransferFailed(f"has {total} bytes; the listing says {self._size}")
        headers = answer.headers
        self._look_for_room(total or 0)
        validator = validator_of(
            headers.get("etag"), headers.get("last-modified"), headers.get("date")
        )
        of_s3 = headers.get("etag", "") if self._wanted.etag else ""
        sums = self._wanted.sums + sums_told(headers, of_s3, of_all=True)
        self._drop()
        path = self._wanted.stem.path(total, validator)
        part = self._part = Part(path, sums, digest=self._limits.digest)
        part.total, part.validator = total, validator
        return part

    def _continued(self, answer: Answer, part: Part, have: Have) -> Part:
        answer.announced()
        found = read_content_range(answer.headers.get("content-range"))
        total = found.total if found else None
        self._limits.check_length(total or 0)
        self._look_for_room((total or have.size) - have.size)
        part.total = have.total if total is None else total
        of_s3 = have.validator if self._wanted.etag else ""
        for told in sums_told(answer.headers, of_s3, of_all=False):
            if told not in part.sums and part.running.digest(told.algorithm) is not None:
                part.sums += (told,)
        return part

    def _take_over(self, left: Leftover, asker: Asker, buffer: Buffer) -> None:
        """Copy what an earlier run left to a file of our own, and make its sums on the way."""
        wanted, digest = self._wanted, self._limits.digest
        sums = wanted.sums
        if needs_nothing(left.have) and not sums:
            told = self._tell_sums(left.have, asker)
            if told is None:
                self._drop_leftover()
                return
            sums = told
        self._look_for_room(left.have.size)
        path = wanted.stem.path(left.have.total, left.have.validator)
        also = {"md5"} if wanted.etag else set()  # the next answer says whether its tag is one
        part = self._part = Part(path, sums, digest=digest, also=also)
        with left.path.open("rb", buffering=0) as file:
            part.store(lambda view: file.readinto(view) or 0, buffer.view(), self._hear)
        part.total, part.validator = left.have.total, left.have.validator
        self._drop_leftover()

    def _tell_sums(self, have: Have, asker: Asker) -> tuple[Sum, ...] | None:
        """Return the sums of a file that is complete on disk; `None` if it is no more what is there.

        Only the head of an answer tells them all: its body is not read, but given up.
        """
        answer = asker.ask(self._wanted.url, {})
        try:
            if answer.status != _OK:
                raise answer.failure()
            headers, total = answer.headers, answer.announced()
        finally:
            answer.close()
        tag = same_kind(have, headers.get("etag"), headers.get("last-modified"))
        if tag != have.validator or total not in {None, have.total}:
            return None
        of_s3 = have.validator if self._wanted.etag else ""
        return sums_told(headers, of_s3, of_all=True)

    def _drop_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.path.unlink(missing_ok=True)
            self._leftover = None

    def _hear(self, before: int, count: int) -> None:
        """Take note of a chunk that is about to be written."""
        self._limits.check_length(before + count, "more")
        if before // LOOK_FOR_ROOM_BYTES != (before + count) // LOOK_FOR_ROOM_BYTES:
            self._look_for_room(0)
        self.bytes_done = before  # written by now; this chunk is with the next
        self.moved_at_s = clock.monotonic_s()
        if self._aborted is not None or self._stalled is not None:  # a late look costs one chunk
            raise TransferFailed("stopped")

    def _finish(self, part: Part) -> Fetched:
        self.bytes_done = part.size
        if part.total is not None and part.size > part.total:
            self._drop()
            raise TransferFailed("has more bytes than it said", again=True)
        if part.total is not None and part.size != part.total:
            message = f"broke off after {part.size} bytes of {part.total}"
            raise TransferFailed(message, again=True)
        if (wrong := part.running.wrong(part.sums)) is not None:
            self._drop()
            self._wrong_sums += 1  # on the way, perhaps: once more, from the first byte
            raise TransferFailed(wrong, again=self._wrong_sums == 1)
        if self._limits.fsync:
            part.sync()
        sha256 = (part.running.digest("sha256") or b"").hex()
        with self._lock:
            if self._aborted is not None:
                raise TransferFailed("stopped")
            self._publish(part, sha256)
        self._part = None
        return Fetched(part.size, sha256)

    def _publish(self, part: Part, sha256: str) -> None:
        wanted, limits = self._wanted, self._limits
        if wanted.journal is not None:
            inode = part.path.stat().st_ino
            wanted.journal.note(wanted.stem.position, Published(part.size, sha256, inode))
        replace = limits.existing is Existing.REPLACE
        publish(part.path, wanted.target, replace=replace, fsync=limits.fsync)

    def _look_for_room(self, wanted: int) -> None:
        self._limits.look_for_room(self._wanted.stem.directory, wanted)
