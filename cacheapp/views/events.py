"""Server-sent events of a job: its JSON after each change and, on request, its changed files.

The id of an event is the job's generation in the database, so a client that reconnects with
`Last-Event-ID` misses nothing, whichever worker responds. If no stream is free, the response is 503 with
the URL to poll instead.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from uuid import UUID

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.downloads.jobs.actors import Actor, is_creator
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.states import FINISHED_JOB
from cacheapp.typed_values import digits
from cacheapp.views.access import permission_required
from cacheapp.views.fields import read_query
from cacheapp.views.job_access import actor, get_job
from cacheapp.views.responses import ApiError, allow_methods
from cacheapp.views.serializers import owner_is_lost, serialize_file, serialize_job
from cacheapp.views.streams import RETRY_AFTER_S, StreamKind, format_event, limit_of, open_stream

logger = logging.getLogger(__name__)

_BATCH = 100
_EventsSince = Callable[[Actor, DownloadJob, int], Iterable[str]]
"""Returns the events from the generation that the client has seen to the current one."""


@permission_required("cacheapp_downloads.view_downloadjob")
@allow_methods("GET")
def events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Stream the changes of a job; `?files=1` includes its files. 204 if the client has the latest event."""
    with_files = read_query(request, {"files": digits(0, 1)}).get("files")
    job, seen = get_job(request, job_id), _last_event_id(request)
    if job.state in FINISHED_JOB and seen >= job.generation:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)  # browsers do not reconnect after it
    events_since = _job_and_file_events if with_files else _job_event
    response = open_stream(request, JobEvents(job.id, seen, actor(request), events_since))
    if response is None:
        poll = reverse("cacheapp:download", args=[job_id])
        most = limit_of(StreamKind.EVENTS)
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"all {most} streams of this worker are in use; try again, or poll GET {poll}",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            poll=poll,
        )
    return response


class JobEvents:
    """The events of a job for one client, from what it has seen to the job's end."""

    def __init__(self, job_id: UUID, seen: int, viewer: Actor, events_since: _EventsSince) -> None:
        self.is_finished = False
        self._job_id = job_id
        self._seen = seen
        self._viewer = viewer
        self._events_since = events_since
        self._owner_lost = False

    def new_events(self) -> str:
        """Return the events since the last call."""
        try:
            return "".join(self._changes())
        except DatabaseError as exc:  # the client reconnects, perhaps to another worker
            logger.warning("events of job %s ended early: %s", self._job_id, exc)
            self.is_finished = True
            return ": the database is unavailable\n\n"

    def _changes(self) -> Iterator[str]:
        job = DownloadJob.objects.filter(id=self._job_id).first()
        if job is None:
            self.is_finished = True
            yield format_event("gone", {"id": str(self._job_id)})
            return
        owner_lost = owner_is_lost(job)  # not a change in the database: a lost owner cannot write
        if job.generation > self._seen or owner_lost != self._owner_lost:
            yield from self._events_since(self._viewer, job, self._seen)
            self._seen, self._owner_lost = job.generation, owner_lost
        if job.state in FINISHED_JOB:
            self.is_finished = True
            yield format_event("end", {"id": str(job.id), "state": job.state}, job.generation)


def _job_event(viewer: Actor, job: DownloadJob, _seen: int) -> Iterator[str]:
    yield format_event("job", serialize_job(job, viewer), job.generation)


def _job_and_file_events(viewer: Actor, job: DownloadJob, seen: int) -> Iterator[str]:
    """Send the files first: the event id, which is sent with the job, acknowledges all of them."""
    whole = is_creator(viewer, job)
    changed = job.files.filter(generation__gt=seen, generation__lte=job.generation)
    rows = list(changed.order_by("position"))
    for first in range(0, len(rows), _BATCH):
        files = [serialize_file(file, whole=whole) for file in rows[first : first + _BATCH]]
        yield format_event("files", {"id": str(job.id), "files": files})
    yield from _job_event(viewer, job, seen)


def _last_event_id(request: HttpRequest) -> int:
    given = request.headers.get("Last-Event-ID") or request.GET.get("last_event_id") or "0"
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(2**63))):
        message = f"Last-Event-ID is {given[:20]!r}; expected the id of an event"
        raise ApiError(HTTPStatus.BAD_REQUEST, message)
    return int(given)
