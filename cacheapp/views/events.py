"""Server-sent events of a job: its JSON after each change and, on request, its changed files."""

import functools
from collections.abc import Iterator
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.downloads.jobs.actors import Actor, is_creator
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.typed_values import digits
from cacheapp.views.access import permission_required
from cacheapp.views.fields import read_query
from cacheapp.views.job_access import actor, get_job
from cacheapp.views.responses import allow_methods
from cacheapp.views.serializers import serialize_file, serialize_job
from cacheapp.views.streams import event_stream_response, format_event

_BATCH = 100


@permission_required("cacheapp_downloads.view_downloadjob")
@allow_methods("GET")
def events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Stream the changes of a job; `?files=1` includes its files."""
    with_files = read_query(request, {"files": digits(0, 1)}).get("files")
    poll = reverse("cacheapp:download", args=[job_id])
    events_since = _job_and_file_events if with_files else _job_event
    for_viewer = functools.partial(events_since, actor(request))
    return event_stream_response(request, get_job(request, job_id), for_viewer, poll)


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
