"""What may be done with a job from any worker: pause, resume, cancel, try again, remove.

Each asks the ledger for one compare-and-set. What needs the owner (pause, cancel) is written down
for it, and done when it next records its progress, within about a second; what needs a new owner
(resume, retry) is this worker's from then on.
"""

import functools
from collections.abc import Callable
from http import HTTPStatus
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.conf import conf
from cacheapp.downloads import ledger, pausing, removing
from cacheapp.downloads.host import existing_host, host
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.removing import NotRemoved
from cacheapp.downloads.states import OWNED_JOB, JobState
from cacheapp.views.access import permitted, require
from cacheapp.views.answers import BadRequest, allow_methods, answer
from cacheapp.views.paging import one_of
from cacheapp.views.shown import job_shown

KEEP, REMOVE = "keep", "delete"
_CHANGE = "cacheapp.change_downloadjob"


def current(job_id: UUID) -> DownloadJob:
    """Return the job; raise `BadRequest` where there is none."""
    job = DownloadJob.objects.filter(id=job_id).first()
    if job is None:
        raise BadRequest(HTTPStatus.NOT_FOUND, f"no download has the id {job_id}")
    return settled(job)


def settled(job: DownloadJob) -> DownloadJob:
    """Return the job, ended if its owner is gone: it must not look as if it still ran."""
    if ledger.is_orphan(job):
        silent = f"no sign of life for {conf().download_heartbeat_s:g} s"
        ledger.end_early(job, f"its worker {job.owner_pid} ended or hangs: {silent}")
        job.refresh_from_db()
    return job


Move = Callable[[DownloadJob], HttpResponseBase]


def _move(move: Move) -> Callable[..., HttpResponseBase]:
    """Make a view of what is done with a job."""

    @permitted(_CHANGE)
    @allow_methods("POST")
    @functools.wraps(move)
    def view(_request: HttpRequest, /, job_id: UUID) -> HttpResponseBase:
        return move(current(job_id))

    return view


@_move
def pause(job: DownloadJob) -> HttpResponseBase:
    """Leave word that a job is to pause; its bytes stay."""
    if pausing.ask_pause(job.id):
        return _asked(job)
    return _is_so_or_refused(job, JobState.PAUSED, "only queued and running ones can be paused")


@_move
def cancel(job: DownloadJob) -> HttpResponseBase:
    """Leave word that a job is to be cancelled."""
    return _cancel(job)


@_move
def resume(job: DownloadJob) -> HttpResponseBase:
    """Go on with a paused job, from the bytes that are there."""
    return _take(job, [JobState.PAUSED], "only paused ones can be resumed")


@_move
def retry(job: DownloadJob) -> HttpResponseBase:
    """Try again what failed or was cancelled; what is whole stays."""
    states = [JobState.FAILED, JobState.CANCELLED]
    return _take(job, states, "only failed and cancelled ones can be tried again")


def delete(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Cancel a job, or, where `?files=` says what becomes of its files, remove it."""
    files = one_of(request, "files", [KEEP, REMOVE])
    if files is None:
        require(request, _CHANGE)
        return _cancel(current(job_id))
    require(request, "cacheapp.delete_downloadjob")
    job = current(job_id)
    try:
        left = removing.remove(job, with_files=files == REMOVE)
    except NotRemoved as exc:
        raise BadRequest(HTTPStatus.CONFLICT, str(exc), state=job.state) from exc
    return answer(HTTPStatus.OK, id=str(job_id), removed=True, files_left=left)


def _cancel(job: DownloadJob) -> HttpResponseBase:
    if ledger.ask_cancel(job.id):
        return _asked(job)
    refusal = "only queued, running and paused ones can be cancelled"
    return _is_so_or_refused(job, JobState.CANCELLED, refusal)


def _asked(job: DownloadJob) -> HttpResponseBase:
    if (runner := existing_host()) is not None and job.owner == runner.owner.token:
        runner.wake()  # other owners see it when they next write progress
    job.refresh_from_db()
    return answer(HTTPStatus.ACCEPTED, **job_shown(job))


def _is_so_or_refused(job: DownloadJob, wanted: JobState, refusal: str) -> HttpResponseBase:
    """Answer where nothing was changed: 200 if it is as was asked, so that asking may be repeated."""
    job.refresh_from_db()
    if job.state == wanted:
        return answer(HTTPStatus.OK, **job_shown(job))
    raise _conflict(job, refusal)


def _take(job: DownloadJob, states: list[JobState], refusal: str) -> HttpResponseBase:
    if job.state not in states:
        raise _conflict(job, refusal)
    if job.fingerprint:
        message = "the job was begun at a terminal: the same command goes on with it"
        raise BadRequest(HTTPStatus.CONFLICT, message, state=job.state)
    runner = host()
    if not pausing.take(job, runner.owner):
        job.refresh_from_db()
        if job.state in OWNED_JOB:  # somebody else asked for the same, a moment ago
            return answer(HTTPStatus.OK, **job_shown(job))
        raise _conflict(job, refusal)
    runner.wake()
    return answer(HTTPStatus.ACCEPTED, **job_shown(job))


def _conflict(job: DownloadJob, refusal: str) -> BadRequest:
    said = f"has {job.state} already" if job.state not in OWNED_JOB else f"is {job.state}"
    said = "is paused" if job.state == JobState.PAUSED else said
    return BadRequest(HTTPStatus.CONFLICT, f"the job {said}; {refusal}", state=job.state)
