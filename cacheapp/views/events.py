"""A job's events in JSON: the job at each change, and the files that changed where that was asked."""

from collections.abc import Iterator
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.views.access import permitted
from cacheapp.views.job_actions import current
from cacheapp.views.paging import whole_number
from cacheapp.views.responses import allow_methods
from cacheapp.views.serializers import file_shown, job_shown
from cacheapp.views.streams import answer_with_events, event

_LOT = 100


@permitted("cacheapp.view_downloadjob")
@allow_methods("GET")
def events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Tell what becomes of a job as it happens; `?files=1`: of its files as well."""
    with_files = whole_number(request, "files", 0, 0, 1)
    poll = reverse("cacheapp:download", args=[job_id])
    tell = _job_and_files if with_files else _job
    return answer_with_events(request, current(job_id), tell, poll)


def _job(job: DownloadJob, _seen: int) -> Iterator[str]:
    yield event("job", job_shown(job), job.generation)


def _job_and_files(job: DownloadJob, seen: int) -> Iterator[str]:
    """Tell of the files first: only with the number that stands at the job's are they all told."""
    changed = job.files.filter(generation__gt=seen, generation__lte=job.generation)
    rows = list(changed.order_by("position"))
    for first in range(0, len(rows), _LOT):
        files = [file_shown(file) for file in rows[first : first + _LOT]]
        yield event("files", {"id": str(job.id), "files": files})
    yield from _job(job, seen)
