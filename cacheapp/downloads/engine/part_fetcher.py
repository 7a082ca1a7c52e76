"""Fetches parts of a split file, one after the other, over one connection at a time."""

import dataclasses
from collections.abc import Callable

from cacheapp import clock
from cacheapp.downloads.engine.part_table import Part
from cacheapp.downloads.engine.rate_limit import Read, Throttle
from cacheapp.downloads.engine.split_file import PartWorker, SplitFile
from cacheapp.downloads.http.client import HTTPClient, Response
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.ranges import (
    RangeDecision,
    ResumePoint,
    decide,
    matching_validator,
    part_headers,
    read_content_range,
)


@dataclasses.dataclass(frozen=True)
class FetchHooks:
    """What a transfer adds to the fetching of its parts."""

    throttle: Throttle
    check: Callable[[], None]
    """Raises if the transfer is being stopped."""
    check_chunk: Callable[[int, int], None]
    """Called before a write, with its offset and length."""
    on_stored: Callable[[int], None]
    """Called after a write, with its length."""


@dataclasses.dataclass
class Stream:
    """An open response, at a byte of the file."""

    response: Response
    at: int
    end: int
    readinto: Read

    def read(self, view: memoryview) -> int:
        """Read into the view; return 0 at the end."""
        count = self.readinto(view)
        self.at += count
        return count


class PartFetcher:
    """One attempt of one worker. All parts come from the representation of the split file."""

    def __init__(
        self,
        worker: PartWorker,
        client: HTTPClient,
        url: str,
        view: memoryview,
        hooks: FetchHooks,
    ) -> None:
        self._worker = worker
        self._split: SplitFile = worker.split
        self._client = client
        self._url = url
        self._view = view
        self._hooks = hooks
        self._stream: Stream | None = None

    def run(self, response: Response | None) -> None:
        """Fetch parts until none is free; the worker has left then.

        `response`: an open one to begin with, at the worker's part. On an error, the caller makes
        the part free.
        """
        try:
            if response is not None:
                at = self._worker.part.at if self._worker.part is not None else 0
                self._stream = self._new_stream(response, at, self._split.total)
            self._split.open()
            if self._worker.part is not None:
                self._fetch(self._worker.part)
            for part in iter(self._claim, None):
                self._fetch(part)
        finally:
            self._close()

    def _claim(self) -> Part | None:
        stream = self._stream
        return self._split.claim(self._worker, None if stream is None else stream.at)

    def _fetch(self, part: Part) -> None:
        """Fetch a claimed part to its end; keep the response open if it has more."""
        while part.at < part.end:
            stream = self._stream
            if stream is not None and stream.at != part.at and not self._can_skip(stream, part):
                self._close()
                stream = None
            if stream is None:
                stream = self._stream = self._request(part)
            self._skip(stream, part.at)
            self._store(stream, part)
            if stream.at >= stream.end:
                self._stream = None
                stream.response.release()

    def _can_skip(self, stream: Stream, part: Part) -> bool:
        """Return whether to read on to the part: the only way if ranges are refused."""
        return self._split.refuses_ranges and stream.at <= part.at < stream.end

    def _skip(self, stream: Stream, to: int) -> None:
        while stream.at < to:
            self._read(stream, to - stream.at)
            self._worker.moved_at_s = clock.monotonic_s()
            self._hooks.on_stored(0)

    def _store(self, stream: Stream, part: Part) -> None:
        while part.at < part.end and stream.at < stream.end:
            count = self._read(stream, min(part.end, stream.end) - part.at)
            self._hooks.check_chunk(part.at, count)
            self._split.store(self._worker, self._view[:count])
            self._hooks.on_stored(count)

    def _read(self, stream: Stream, most: int) -> int:
        count = stream.read(self._view[:most])
        if not count:
            message = f"a part ended at byte {stream.at}; expected {stream.end}"
            raise TransferFailed(message, retryable=True)
        return count

    def _request(self, part: Part) -> Stream:
        split = self._split
        headers = part_headers(part.at, part.end, split.validator)
        response = self._client.get(self._url, headers)
        try:
            return self._accept(response, part)
        except BaseException:
            response.close()
            raise

    def _accept(self, response: Response, part: Part) -> Stream:
        """Return the stream of a response that provably continues the file; otherwise raise."""
        split, headers = self._split, response.headers
        wanted = ResumePoint(part.at, split.validator, split.total)
        tag = matching_validator(wanted, headers.get("etag"), headers.get("last-modified"))
        content_range = headers.get("content-range")
        decision = decide(response.status, wanted, content_range, tag)
        if decision is RangeDecision.NOT_A_FILE:
            raise response.to_error()
        length = response.content_length()
        found = read_content_range(content_range)
        if decision is RangeDecision.CONTINUE and found is not None:
            split.prove(headers)
            split.recruit()
            return self._new_stream(response, found.first, found.last + 1)
        is_same = tag == split.validator
        is_alone = split.refuse_ranges() if is_same else False
        if decision is not RangeDecision.RESTART or length != split.total or not is_same:
            split.restart()
            message = "responded with other bytes" if is_same else "the object has changed"
            raise TransferFailed(message, retryable=True)
        if not is_alone:
            raise TransferFailed("responded with the whole file to a range", retryable=True)
        return self._new_stream(response, 0, split.total)

    def _new_stream(self, response: Response, at: int, end: int) -> Stream:
        read = self._hooks.throttle.limited(response.readinto, end - at, self._wait)
        return Stream(response, at, end, read)

    def _wait(self, wait_s: float) -> None:
        """Wait for a rate limit, unless the worker is stopped."""
        self._worker.wait(wait_s)
        self._hooks.check()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.response.close()
