"""Server-sent events about a job, which any worker can resume where another one stopped.

The id of an event is the job's generation in the database, so a client that reconnects with
`Last-Event-ID` misses nothing, whichever worker responds. A stream occupies a thread, so a worker has
at most `DOWNLOAD_STREAMS`, together with the files that it sends. Each stream ends after
`DOWNLOAD_STREAM_S` seconds, and the client reconnects. If none is free, the response is 503 with the URL
to poll instead.
"""

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.states import FINISHED_JOB
from cacheapp.processes.waiting import pause
from cacheapp.views.responses import ApiError
from cacheapp.views.serializers import owner_is_lost

logger = logging.getLogger(__name__)

EventsSince = Callable[[DownloadJob, int], Iterable[str]]
"""Returns the events from the generation that the client has seen to the current one."""

_POLL_S = 0.5
_KEEPALIVE_S = 5.0
"""After this time a comment is sent: only a write detects that the client is gone."""
_RECONNECT_MS = 1000
RETRY_AFTER_S = 5
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter for nginx


def format_event(name: str, data: Mapping[str, Any], number: int | None = None) -> str:
    """Return an event as it is sent, with this worker's `pid`; one without a number is repeated after a reconnect."""
    first = "" if number is None else f"id: {number}\n"
    payload = json.dumps({"pid": os.getpid(), **data})
    return f"{first}event: {name}\ndata: {payload}\n\n"


class _StreamSlots:
    """The streams of this process, limited in number; `_lock` guards `_taken`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self.is_ending: Callable[[], bool] = lambda: False

    def acquire(self, at_least: int = 0) -> bool:
        """Return True if a stream was free. `at_least`: as many are allowed, whatever the settings are."""
        with self._lock:
            if self._taken >= max(at_least, max_streams()):
                return False
            self._taken += 1
            return True

    def release(self) -> None:
        """Free a stream; call it once for each that was acquired."""
        with self._lock:
            self._taken -= 1


slots = _StreamSlots()
"""Those of this process, which event streams and the files of `file_responses` share."""


def max_streams() -> int:
    """Return the maximum streams of a worker; if its threads are known, one is kept free."""
    settings = conf()
    left = settings.download_streams if settings.threads is None else settings.threads - 1
    return min(settings.download_streams, left)


def end_streams_when(is_ending: Callable[[], bool]) -> None:
    """End streams when `is_ending` returns True, so that the worker does not wait for them."""
    slots.is_ending = is_ending


class EventStream:
    """The events for one client, as an iterator for WSGI and ASGI. `close` frees its slot, once."""

    def __init__(self, job_id: UUID, seen: int, events_since: EventsSince) -> None:
        self._job_id = job_id
        self._seen = seen
        self._events_since = events_since
        self._owner_lost = False
        self._ends_at_s = clock.monotonic_s() + conf().download_stream_s
        self._last_sent_s = clock.monotonic_s()
        self._is_finished = False
        self._closed = threading.Lock()  # acquired by the first `close`

    def __iter__(self) -> Iterator[bytes]:
        yield self._preamble()
        while not self._is_finished:
            if text := self._next_chunk():
                yield text
            if not self._is_finished:
                pause(_POLL_S)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._preamble()
        while not self._is_finished:
            if text := await sync_to_async(self._next_chunk)():
                yield text
            if not self._is_finished:
                await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Free the slot. Django calls it however the response ends, also before it began."""
        if self._closed.acquire(blocking=False):
            slots.release()

    def _preamble(self) -> bytes:
        return f"retry: {_RECONNECT_MS}\n\n".encode()

    def _next_chunk(self) -> bytes:
        """Return new events, a keepalive comment, or nothing."""
        now_s = clock.monotonic_s()
        try:
            text = "".join(self._new_events())
        except DatabaseError as exc:  # the client reconnects, perhaps to another worker
            logger.warning("events of job %s ended early: %s", self._job_id, exc)
            self._is_finished = True
            return b": the database is unavailable\n\n"
        if now_s > self._ends_at_s or slots.is_ending():
            self._is_finished = True
        if not text and now_s - self._last_sent_s >= _KEEPALIVE_S:
            text = ": nothing new\n\n"
        if text:
            self._last_sent_s = now_s
        return text.encode()

    def _new_events(self) -> Iterator[str]:
        job = DownloadJob.objects.filter(id=self._job_id).first()
        if job is None:
            self._is_finished = True
            yield format_event("gone", {"id": str(self._job_id)})
            return
        owner_lost = owner_is_lost(job)  # not a change in the database: a lost owner cannot write
        if job.generation > self._seen or owner_lost != self._owner_lost:
            yield from self._events_since(job, self._seen)
            self._seen, self._owner_lost = job.generation, owner_lost
        if job.state in FINISHED_JOB:
            self._is_finished = True
            yield format_event("end", {"id": str(job.id), "state": job.state}, job.generation)


def event_stream_response(
    request: HttpRequest, job: DownloadJob, events_since: EventsSince, poll: str
) -> HttpResponseBase:
    """Return the event stream of a job; 204 if the client has the latest event. `poll`: URL for a 503."""
    seen = _last_event_id(request)
    if job.state in FINISHED_JOB and seen >= job.generation:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)  # browsers do not reconnect after it
    if request.method == "HEAD":
        return HttpResponse(content_type="text/event-stream", headers=_HEADERS)
    if not slots.acquire():
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"all {max_streams()} streams of this worker are in use; try again, or poll GET {poll}",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            poll=poll,
        )
    stream = EventStream(job.id, seen, events_since)
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


def _last_event_id(request: HttpRequest) -> int:
    given = request.headers.get("Last-Event-ID") or request.GET.get("last_event_id") or "0"
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(2**63))):
        message = f"Last-Event-ID is {given[:20]!r}; expected the id of an event"
        raise ApiError(HTTPStatus.BAD_REQUEST, message)
    return int(given)
