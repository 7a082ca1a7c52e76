"""What somebody may ask of a job, in any process: pause, cancel, go on, try again.

Each is a compare-and-set in `ledger`, `pausing` or `ending`. What needs the owner (pause, cancel) is written
down for it, and done when it next records its progress; what needs a new owner (resume, retry) is
this process's from then on.
"""

import logging
import os
import uuid

from cacheapp.downloads.jobs import ownership, pause_resume, termination
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.runners import dispatch
from cacheapp.downloads.runners.coordinator import existing_coordinator
from cacheapp.downloads.states import OWNED_JOB, JobState
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)


class InvalidTransition(CacheappError):
    """The job is in no state for it; nothing was changed."""


def pause(job: DownloadJob) -> bool:
    """Have a job pause; return whether that was news. Raise `InvalidTransition`. The job is read anew."""
    if pause_resume.request_pause(job.id):
        return _wake_owner(job)
    return _is_so(job, JobState.PAUSED, "only queued and running ones can be paused")


def cancel(job: DownloadJob) -> bool:
    """Have a job end; as `pause`. `InvalidTransition` too, where what it left on the disk cannot be shut out."""
    try:
        asked = termination.cancel(job.id)
    except OSError as exc:  # of a paused one, whose runs must name no file after the end
        message = f"its directory cannot be written ({exc.strerror}), and so it stays as it is"
        raise InvalidTransition(message) from exc
    if asked:
        _wake_owner(job)
        if job.state == JobState.QUEUED and job.owner is None:
            _end_unowned(job)
        return True
    return _is_so(job, JobState.CANCELLED, "only queued, running and paused ones can be cancelled")


def resume(job: DownloadJob) -> bool:
    """Go on with a paused job, from the bytes that are there; as `pause`."""
    return _take(job, [JobState.PAUSED], "only paused ones can be resumed")


def retry(job: DownloadJob) -> bool:
    """Try again what failed or was cancelled; what is whole stays. As `pause`."""
    states = [JobState.FAILED, JobState.CANCELLED]
    return _take(job, states, "only failed and cancelled ones can be tried again")


def _end_unowned(job: DownloadJob) -> None:
    """Cancel a job that waits for somebody to run it: Celery's queue may be long.

    We adopt it for that. Whoever adopts it first cancels it as well; and if we are killed here, it is
    found as any other job that lost its owner.
    """
    me = JobOwner(uuid.uuid4(), os.getpid())
    if ownership.adopt(job, me):
        _read_anew(job)
        try:
            termination.end(job, me, "")
        except OSError as exc:  # whoever adopts it next tries again
            logger.warning("job %s: not cancelled yet: %s", job.id, exc)
    _read_anew(job)


def _wake_owner(job: DownloadJob) -> bool:
    _read_anew(job)
    if (runner := existing_coordinator()) is not None and job.owner == runner.owner.token:
        runner.wake()  # other owners see it when they next write progress
    return True


def _is_so(job: DownloadJob, wanted: JobState, refusal: str) -> bool:
    _read_anew(job)
    if job.state == wanted:
        return False
    raise _not_now(job, refusal)


def _take(job: DownloadJob, states: list[JobState], refusal: str) -> bool:
    if job.state == JobState.QUEUED and job.owner is None:
        dispatch.submit(job.id)  # again: who asked before may not have reached the broker
        return False
    if job.state not in states:
        raise _not_now(job, refusal)
    if job.fingerprint:
        raise InvalidTransition("the job was begun at a terminal: the same command goes on with it")
    taken = pause_resume.requeue(job, dispatch.initial_owner())
    _read_anew(job)
    if taken:
        dispatch.submit(job.id)
    elif job.state not in OWNED_JOB:
        raise _not_now(job, refusal)
    return taken  # if not, somebody else asked for the same, a moment ago


def _read_anew(job: DownloadJob) -> None:
    try:
        job.refresh_from_db()
    except DownloadJob.DoesNotExist:
        raise InvalidTransition("the job was removed a moment ago") from None


def _not_now(job: DownloadJob, refusal: str) -> InvalidTransition:
    ended = job.state not in OWNED_JOB and job.state != JobState.PAUSED
    said = f"has {job.state} already" if ended else f"is {job.state}"
    return InvalidTransition(f"the job {said}; {refusal}")
