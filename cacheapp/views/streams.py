"""Responses that last: their limit in each process, and server-sent events for WSGI and ASGI.

Each occupies a thread, so a process has at most `DOWNLOAD_STREAMS` event streams and as many files in
transfer, and fewer of both together than it has threads. A file is never refused because of events:
if no thread is left for it, an event stream ends. Each ends after `DOWNLOAD_STREAM_S` seconds, and the
client reconnects, or polls.
"""

import asyncio
import json
import math
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.processes.waiting import pause

_POLL_S = 0.5
_KEEPALIVE_S = 5.0
"""After this time a comment is sent: only a write detects that the client is gone."""
_RECONNECT_MS = 1000
RETRY_AFTER_S = 5
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter for nginx


class StreamKind(Enum):
    """What a response that lasts sends."""

    EVENTS = "events"
    FILE = "file"


def limit_of(kind: StreamKind) -> int:
    """Return the maximum of one kind; if the threads are known, one is kept free."""
    settings = conf()
    most = settings.download_streams
    if settings.threads is None:
        return most if kind is StreamKind.EVENTS else max(1, most)
    left = settings.threads - 1
    if kind is StreamKind.FILE:  # a worker with a single thread sends files too
        return max(1, min(most, left))
    return min(most, left - 1 if left > 1 else left)


class _StreamSlots:
    """The streams of this process, limited in number; `_lock` guards `_taken`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = dict.fromkeys(StreamKind, 0)
        self.is_ending: Callable[[], bool] = lambda: False

    def acquire(self, kind: StreamKind) -> bool:
        """Return True if a stream of this kind was free.

        A file also gets the thread that is kept free, until an event stream has ended for it.
        """
        with self._lock:
            is_free = self._taken[kind] < limit_of(kind)
            if kind is StreamKind.EVENTS:
                is_free = is_free and self._left() > 0
            self._taken[kind] += is_free
            return is_free

    def must_end_for_a_file(self) -> bool:
        """Return True if an event stream has to end, so that a thread is free again."""
        with self._lock:
            return self._left() < 0

    def _left(self) -> float:
        """Return how many threads are left for streams; negative if the one kept free is in use."""
        threads = conf().threads
        return math.inf if threads is None else max(1, threads - 1) - sum(self._taken.values())

    def release(self, kind: StreamKind) -> None:
        """Free a stream; call it once for each that was acquired."""
        with self._lock:
            self._taken[kind] -= 1


slots = _StreamSlots()
"""Those of this process."""


def end_streams_when(is_ending: Callable[[], bool]) -> None:
    """End event streams when `is_ending` returns True, so that the worker does not wait for them."""
    slots.is_ending = is_ending


def format_event(name: str, data: Mapping[str, Any], number: int | None = None) -> str:
    """Return an event as it is sent, with this worker's `pid`; one without a number is repeated after a reconnect."""
    first = "" if number is None else f"id: {number}\n"
    payload = json.dumps({"pid": os.getpid(), **data})
    return f"{first}event: {name}\ndata: {payload}\n\n"


class Events(Protocol):
    """What an event stream sends."""

    is_finished: bool
    """Whether nothing follows what `new_events` has returned."""

    def new_events(self) -> str:
        """Return what is new since the last call, as it is sent, or an empty text."""


class EventStream:
    """Events for one client, as an iterator for WSGI and ASGI. `close` frees its slot, once."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._ends_at_s = clock.monotonic_s() + conf().download_stream_s
        self._last_sent_s = clock.monotonic_s()
        self._is_over = False
        self._closed = threading.Lock()  # acquired by the first `close`

    def __iter__(self) -> Iterator[bytes]:
        yield self._preamble()
        while not self._is_over:
            if text := self._next_chunk():
                yield text
            if not self._is_over:
                pause(_POLL_S)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._preamble()
        while not self._is_over:
            if text := await sync_to_async(self._next_chunk)():
                yield text
            if not self._is_over:
                await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Free the slot. Django calls it however the response ends, also before it began."""
        if self._closed.acquire(blocking=False):
            slots.release(StreamKind.EVENTS)

    def _preamble(self) -> bytes:
        return f"retry: {_RECONNECT_MS}\n\n".encode()

    def _next_chunk(self) -> bytes:
        """Return new events, a keepalive comment, or nothing."""
        now_s = clock.monotonic_s()
        text = self._events.new_events()
        self._is_over = (
            self._events.is_finished
            or now_s > self._ends_at_s
            or slots.is_ending()
            or slots.must_end_for_a_file()
        )
        if not text and now_s - self._last_sent_s >= _KEEPALIVE_S:
            text = ": nothing new\n\n"
        if text:
            self._last_sent_s = now_s
        return text.encode()


def open_stream(request: HttpRequest, events: Events) -> HttpResponseBase | None:
    """Return a response that sends these events; `None` if the process has no stream free."""
    if request.method == "HEAD":
        return HttpResponse(content_type="text/event-stream", headers=_HEADERS)
    if not slots.acquire(StreamKind.EVENTS):
        return None
    stream = EventStream(events)
    body: Any = stream.__aiter__() if isinstance(request, ASGIRequest) else iter(stream)
    try:
        return _EventStreamResponse(body, stream)
    except BaseException:
        stream.close()
        raise


class _EventStreamResponse(StreamingHttpResponse):
    """Closes the stream even if nothing was read: a generator that never started would not."""

    def __init__(self, body: Any, stream: EventStream) -> None:
        super().__init__(body, content_type="text/event-stream", headers=_HEADERS)
        self._stream = stream

    def close(self) -> None:
        """Close the response and the stream."""
        try:
            super().close()
        finally:
            self._stream.close()
