"""The commands on a job, from any process: pause, cancel, resume, retry.

Each is one compare-and-set in `jobs.transitions`. The owner applies a pause or a cancellation when it
next records its progress. After a resume or a retry, this process is the owner (or, with Celery, the
process that runs the task).
"""

from collections.abc import Callable

from cacheapp.downloads.jobs import transitions
from cacheapp.downloads.jobs.actors import CODE, Actor
from cacheapp.downloads.jobs.missing_files import missing_files
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import dispatch
from cacheapp.downloads.states import OWNED_JOB, FileState, JobState
from cacheapp.errors import CacheappError

_RETRYABLE = [JobState.FAILED, JobState.CANCELLED]
_EXPECTED_FOR_RETRY = "only failed and cancelled jobs can be retried"
Command = Callable[[DownloadJob, Actor], bool]


class InvalidTransition(CacheappError):
    """The job's state does not allow the command; nothing was changed."""


def pause(job: DownloadJob, by: Actor = CODE) -> bool:
    """Pause a job; return False if it is already paused. Raise `InvalidTransition`.

    `job` is refreshed from the database. `by` is recorded in the audit trail.
    """
    if transitions.request_pause(job.id, by):
        return _wake_owner(job)
    return _is_already(job, JobState.PAUSED, "only queued and running jobs can be paused")


def cancel(job: DownloadJob, by: Actor = CODE) -> bool:
    """Cancel a job; otherwise like `pause`. `InvalidTransition` also if its directory is not writable."""
    try:
        requested = transitions.cancel(job.id, by)
    except OSError as exc:  # of a paused job: its runs must publish no file after the end
        message = f"its directory cannot be written ({exc.strerror}); the job stays paused"
        raise InvalidTransition(message) from exc
    if requested:
        _wake_owner(job)
        if job.state == JobState.QUEUED and job.owner is None:
            # Celery's queue may be long: do not wait for a task.
            transitions.cancel_lost(job)
            _refresh(job)
        if job.state == JobState.CANCELLED:
            dispatch.submit_notifications(job.id)
        return True
    expected = "only queued, running and paused jobs can be cancelled"
    return _is_already(job, JobState.CANCELLED, expected)


def resume(job: DownloadJob, by: Actor = CODE, *, verify: bool = False) -> bool:
    """Resume a paused job from the bytes on disk; otherwise like `pause`.

    `verify`: read the complete files first, and fetch those again that differ from their digest.
    """
    expected = "only paused jobs can be resumed"
    return _requeue(job, by, [JobState.PAUSED], expected, verify=verify)


def retry(job: DownloadJob, by: Actor = CODE, *, verify: bool = False) -> bool:
    """Retry the files that failed or were cancelled, and keep the others; otherwise like `resume`.

    Raise `QuotaExceeded` if the job's creator may have no further unfinished job.
    """
    return _requeue(job, by, _RETRYABLE, _EXPECTED_FOR_RETRY, verify=verify)


def retry_file(job: DownloadJob, position: int, by: Actor = CODE) -> bool:
    """Retry one file that failed or was cancelled; otherwise like `retry`."""
    states = [FileState.FAILED, FileState.CANCELLED]
    if not job.files.filter(position=position, state__in=states).exists():
        raise InvalidTransition(f"file {position} has neither failed nor been cancelled")
    return _requeue(job, by, _RETRYABLE, _EXPECTED_FOR_RETRY, verify=False, only=position)


def _wake_owner(job: DownloadJob) -> bool:
    _refresh(job)
    from cacheapp.downloads.runners.coordinator import existing_coordinator  # noqa: PLC0415 (an extra)

    running = existing_coordinator()
    if running is not None and job.owner == running.owner.token:
        running.wake()  # other owners see the request when they next record progress
    return True


def _is_already(job: DownloadJob, state: JobState, expected: str) -> bool:
    _refresh(job)
    if job.state == state:
        return False
    raise _invalid(job, expected)


def _requeue(
    job: DownloadJob,
    by: Actor,
    states: list[JobState],
    expected: str,
    *,
    verify: bool,
    only: int | None = None,
) -> bool:
    if job.state == JobState.QUEUED and job.owner is None:
        dispatch.submit(job.id)  # again: the broker may not have had the task
        return False
    if job.state not in states:
        raise _invalid(job, expected)
    if job.fingerprint:
        raise InvalidTransition("the job belongs to a terminal; run the same command to resume it")
    try:
        missing = missing_files(job, verify=verify)
    except OSError as exc:
        raise InvalidTransition(f"its directory cannot be read ({exc.strerror})") from exc
    queued = transitions.requeue(job, dispatch.initial_owner(), missing=missing, by=by, only=only)
    _refresh(job)
    if queued:
        dispatch.submit(job.id)
    elif job.state not in OWNED_JOB:
        raise _invalid(job, expected)
    return queued  # if False, another request has just queued it


def _refresh(job: DownloadJob) -> None:
    try:
        job.refresh_from_db()
    except DownloadJob.DoesNotExist:
        raise InvalidTransition("the job was removed just now") from None


def _invalid(job: DownloadJob, expected: str) -> InvalidTransition:
    found = f"is {job.state}"
    if job.state in {JobState.SUCCEEDED, JobState.FAILED}:
        found = f"has already {job.state}"
    elif job.state == JobState.CANCELLED:
        found = "is already cancelled"
    return InvalidTransition(f"the job {found}; {expected}")
